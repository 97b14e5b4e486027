//! A pool without a policy, in the test's own process: it runs the vCPUs of one guest in turns of a millisecond on
//! one host CPU.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::first_cpu;
use baton_link::LinkError;
use baton_link::answer::{Answer, Rang};
use baton_link::command::{Command, RunCommand};
use baton_link::connection::{Connection, ConnectionError, Patience};
use baton_link::counted::CountedVcpus;
use baton_link::foreign_process::ForeignProcess;
use baton_link::join::{self, JoinedGuest};
use baton_link::message::{GuestEnded, GuestMessage, JoinRequest, Order, PROTOCOL, PoolMessage};
use baton_link::pool_side::WaitLimits;
use baton_link::wake_file::WakeFile;
use baton_machine::Doorbell;
use baton_os::sys;
use rustix::event::epoll::{self, CreateFlags, Event};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::time::Timespec;
use vcpu_sched::Counters;

/// A turn, ns.
const TURN: u64 = 1_000_000;
/// How long the pool sleeps at most when no vCPU has work.
const IDLE: Duration = Duration::from_millis(10);
const LIMITS: WaitLimits = WaitLimits {
    until: None,
    bound: 60_000_000_000,
    check_every: 10_000_000,
};

/// The socket of a pool.
pub struct FakePool {
    listener: OwnedFd,
    path: PathBuf,
}

/// What a vCPU of the guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    /// It sleeps by command.
    Asleep,
    /// It has rung that it is idle until this time, ns.
    Idle(Option<u64>),
    Ended,
}

/// What has been counted.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Turns that were given.
    pub turns: u64,
    /// Turns that ended in a halt.
    pub halts: u64,
    /// Sleeps that have ended.
    pub wakes: u64,
    /// Doorbells.
    pub rings: u64,
    /// How the guest has ended.
    pub ended: Option<GuestEnded>,
    /// Reports about the source of the hints.
    pub hints: Vec<String>,
    /// Ends after which the guest starts again.
    pub restarting: Vec<String>,
    /// How often the guest has been started again, as it reports that.
    pub restarted: Vec<u32>,
}

/// A guest that has joined.
pub struct FakeMember {
    pub request: JoinRequest,
    pub counts: Counts,
    connection: Connection,
    joined: JoinedGuest,
    states: Vec<State>,
    /// Wakes that were rung for a vCPU that was not idle.
    wakes: Vec<bool>,
    next: usize,
    host_cpu: u32,
    _wake_file: WakeFile,
    epoll: OwnedFd,
}

/// What the pool reports that it has counted for each vCPU.
pub fn counted() -> Counters {
    Counters {
        runtime_ns: 5,
        charged_ns: 5,
        proxied: 3,
        ..Counters::default()
    }
}

impl FakePool {
    /// Listens at a path of its own, which ends in `name`.
    pub fn listen(name: &str) -> Self {
        let file = format!("baton-pool-{}-{name}.sock", std::process::id());
        Self::listen_at(std::env::temp_dir().join(file))
    }

    /// Listens at `path`, where an earlier pool may have listened.
    pub fn listen_at(path: PathBuf) -> Self {
        let _ = std::fs::remove_file(&path);
        let flags = SocketFlags::CLOEXEC;
        let kind = SocketType::SEQPACKET;
        let listener = net::socket_with(AddressFamily::UNIX, kind, flags, None).expect("a socket");
        let address = SocketAddrUnix::new(&path).expect("an address");
        net::bind(&listener, &address).expect("a path of its own");
        net::listen(&listener, 8).expect("listens");
        Self { listener, path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the request of the next guest.
    fn accept(
        &self,
    ) -> (
        Connection,
        JoinRequest,
        Option<baton_link::connection::ForeignFile>,
    ) {
        let socket = net::accept_with(&self.listener, SocketFlags::CLOEXEC).expect("a guest");
        let connection = Connection::from(socket);
        let hello = connection.receive::<GuestMessage>(Patience::Wait);
        let hello = hello.expect("a message").without_file();
        assert_eq!(
            hello.expect("no file"),
            GuestMessage::Hello { protocol: PROTOCOL }
        );
        let welcome = PoolMessage::Welcome { protocol: PROTOCOL };
        connection.send(&welcome, None).expect("sent");
        let received = connection.receive(Patience::Wait).expect("a message");
        match received.message {
            GuestMessage::Join(request) => (connection, request, received.file),
            other => panic!("{other:?}"),
        }
    }

    /// Refuses the next guest.
    pub fn refuse(&self, reason: &str, would_fit: &str) {
        let (connection, _, _) = self.accept();
        let refused = PoolMessage::Refused {
            reason: reason.to_owned(),
            would_fit: Some(would_fit.to_owned()),
        };
        connection.send(&refused, None).expect("sent");
    }

    /// Admits the next guest.
    pub fn admit(&self) -> FakeMember {
        let (connection, request, file) = self.accept();
        let process = ForeignProcess::of_peer(&connection).expect("a process");
        let joined = join::accept(&process, &request, file).expect("it makes sense");
        let wake_file = WakeFile::new().expect("a file");
        let admitted = PoolMessage::Admitted { guest: 1 };
        let way = wake_file.as_fd();
        connection.send(&admitted, Some(way)).expect("sent");
        let epoll = epoll::create(CreateFlags::CLOEXEC).expect("an instance");
        wake_file.watch(&epoll, 0).expect("watched");
        let count = joined.vcpus.len();
        let mut member = FakeMember {
            request,
            counts: Counts::default(),
            connection,
            joined,
            states: vec![State::Ready; count],
            wakes: vec![false; count],
            next: 0,
            host_cpu: first_cpu().parse().expect("a number"),
            _wake_file: wake_file,
            epoll,
        };
        // They wait to be started, or have gone on by themselves.
        for vcpu in 1..count {
            member.put_to_sleep(vcpu);
        }
        member
    }
}

impl Drop for FakePool {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl FakeMember {
    /// Gives turns while `go_on` and the guest has not left. Returns whether the guest has left.
    pub fn run_while(&mut self, mut go_on: impl FnMut(&Counts) -> bool) -> bool {
        while go_on(&self.counts) {
            self.read_messages();
            if self.counts.ended.is_some() {
                self.stop_all();
                let counted = CountedVcpus::new(&vec![counted(); self.states.len()]);
                // A guest that has lost another pool does not wait for it.
                let _ = self.connection.send(&PoolMessage::Counted(counted), None);
                return true;
            }
            self.take_the_woken();
            match self.pick() {
                Some(vcpu) => self.turn(vcpu),
                None => self.rest(),
            }
        }
        false
    }

    /// Gives turns until the guest leaves. Returns how it has ended.
    pub fn run_to_the_end(&mut self) -> GuestEnded {
        assert!(self.run_while(|_| true));
        self.counts.ended.clone().expect("it has left")
    }

    pub fn order(&self, order: Order) {
        self.send(&PoolMessage::Order(order));
    }

    pub fn send(&self, message: &PoolMessage) {
        self.connection.send(message, None).expect("sent");
    }

    /// Announces the end of this pool.
    pub fn go_away(&self) {
        self.send(&PoolMessage::GoingAway { restarts: true });
    }

    /// Waits until the guest leaves, and hangs up without another command. Returns how the guest has ended.
    pub fn hang_up_at_the_end(self) -> GuestEnded {
        loop {
            let received = self.connection.receive(Patience::Wait).expect("a message");
            if let GuestMessage::Leave(ended) = received.message {
                return ended;
            }
        }
    }

    fn read_messages(&mut self) {
        loop {
            let received = self.connection.receive(Patience::DontWait);
            match received.and_then(|received| received.without_file()) {
                Ok(GuestMessage::Leave(ended)) => self.counts.ended = Some(ended),
                Ok(GuestMessage::Hints { source }) => self.counts.hints.push(source),
                Ok(GuestMessage::Restarting(ended)) => self.restarting(ended),
                Ok(GuestMessage::Restarted { restarts }) => self.counts.restarted.push(restarts),
                Ok(other) => panic!("{other:?}"),
                Err(ConnectionError::WouldBlock) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The guest has ended: vCPUs that are idle run once.
    fn restarting(&mut self, ended: GuestEnded) {
        self.counts.restarting.push(ended.text);
        (0..self.states.len()).for_each(|vcpu| self.wake(vcpu));
    }

    fn pick(&mut self) -> Option<usize> {
        let now = sys::monotonic_ns();
        let count = self.states.len();
        let in_turn = (self.next..self.next + count).map(|vcpu| vcpu % count);
        let has_work = |&vcpu: &usize| match self.states[vcpu] {
            State::Ready => true,
            State::Idle(until) => until.is_some_and(|until| until <= now),
            State::Asleep | State::Ended => false,
        };
        let picked = in_turn.into_iter().find(has_work)?;
        self.next = picked + 1;
        Some(picked)
    }

    fn turn(&mut self, vcpu: usize) {
        self.counts.turns += 1;
        let run = Command::Run(RunCommand {
            until: Some(sys::monotonic_ns() + TURN),
            host_cpu: self.host_cpu,
            donated: None,
            is_deferred: false,
            stolen_ns: self.counts.turns,
        });
        let side = &mut self.joined.vcpus[vcpu].side;
        side.give(&run).expect("it is here");
        let answer = side.wait(&LIMITS, sys::monotonic_ns).expect("an answer");
        self.states[vcpu] = State::Ready;
        match answer {
            Answer::Preempted(_) => {}
            Answer::Rang(rang) => self.rang(vcpu, rang),
            Answer::Halted(_) => {
                self.counts.halts += 1;
                self.put_to_sleep(vcpu);
            }
            Answer::Woken => panic!("it did not sleep"),
            Answer::Ended => self.states[vcpu] = State::Ended,
        }
    }

    fn rang(&mut self, vcpu: usize, rang: Rang) {
        self.counts.rings += 1;
        match rang.doorbell {
            Doorbell::Wait | Doorbell::Release { .. } => {}
            Doorbell::Idle if std::mem::take(&mut self.wakes[vcpu]) => {}
            Doorbell::Idle => self.states[vcpu] = State::Idle(rang.payload),
            Doorbell::Wake { target } => self.wake(target as usize),
        }
    }

    fn wake(&mut self, vcpu: usize) {
        match self.states[vcpu] {
            State::Idle(_) => self.states[vcpu] = State::Ready,
            _ => self.wakes[vcpu] = true,
        }
    }

    fn put_to_sleep(&mut self, vcpu: usize) {
        let side = &mut self.joined.vcpus[vcpu].side;
        side.give(&Command::Sleep).expect("it is here");
        self.states[vcpu] = State::Asleep;
    }

    fn take_the_woken(&mut self) {
        for (state, vcpu) in self.states.iter_mut().zip(&mut self.joined.vcpus) {
            if *state != State::Asleep {
                continue;
            }
            match vcpu.side.take_answer().expect("it makes sense") {
                None => {}
                Some(Answer::Woken) => {
                    self.counts.wakes += 1;
                    *state = State::Ready;
                }
                Some(_) => *state = State::Ended,
            }
        }
    }

    /// Nothing has work: waits until a vCPU reports that it has woken, at most for [`IDLE`].
    fn rest(&self) {
        let mut events: Vec<Event> = Vec::with_capacity(4);
        let room = rustix::buffer::spare_capacity(&mut events);
        let timeout = Timespec::try_from(IDLE).expect("a time");
        let _ = epoll::wait(&self.epoll, room, Some(&timeout));
    }

    /// Commands the thread of vCPU 0 to stop.
    pub fn stop_one(&mut self) {
        self.stop(0);
    }

    /// Takes all vCPUs back, and commands their threads to stop.
    fn stop_all(&mut self) {
        (0..self.states.len()).for_each(|vcpu| self.stop(vcpu));
    }

    fn stop(&mut self, vcpu: usize) {
        let vcpu = &mut self.joined.vcpus[vcpu];
        vcpu.kick.kick(sys::monotonic_ns());
        match vcpu.side.wait(&LIMITS, sys::monotonic_ns) {
            Ok(_) | Err(LinkError::NoCommand) => {}
            Err(error) => panic!("{error}"),
        }
        vcpu.side.give(&Command::Stop).expect("it is here");
        let answer = vcpu.side.wait(&LIMITS, sys::monotonic_ns);
        assert_eq!(answer, Ok(Answer::Ended));
    }
}
