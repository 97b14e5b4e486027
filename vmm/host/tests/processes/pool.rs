//! The pool, and the socket at which guests' processes join.

use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use baton_config::{ExecutorPriority, LateHalts, RunConfig};
use baton_host::executor::{
    self, ExecutorError, GuestAccount, GuestCallError, GuestNumber, PoolCpus, PoolHandle,
    PoolReader, ProcessReport,
};
use baton_host::runner::Runner;
use baton_link::LinkError;
use baton_link::connection::{Connection, Patience};
use baton_link::foreign_process::ForeignProcess;
use baton_link::join;
use baton_link::message::{GuestMessage, JoinRequest, PROTOCOL, PoolMessage};
use baton_link::wake_file::WakeFile;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketType};

use super::guest::{Behaviour, GUEST, POOL};

/// A pool whose executors run.
pub struct ServicePool {
    pub runner: Box<dyn Runner>,
    pub handle: PoolHandle,
    pub failures: Arc<Failures>,
}

/// What the pool has reported of processes.
#[derive(Debug, Default)]
pub struct Failures(Mutex<Vec<(GuestNumber, String)>>);

impl Failures {
    /// What was reported of guest `number`.
    pub fn of(&self, number: GuestNumber) -> Option<String> {
        let failures = self.0.lock().expect("no panic");
        let found = failures.iter().find(|(failed, _)| *failed == number);
        found.map(|(_, error)| error.clone())
    }
}

impl ProcessReport for Failures {
    fn failed(&self, number: GuestNumber, error: &LinkError) {
        let mut failures = self.0.lock().expect("no panic");
        failures.push((number, error.to_string()));
    }

    fn notice(&self, _: GuestNumber, _: &str) {}
}

/// What is left of a guest: its numbers, or that it has been taken out otherwise.
pub type Gone = Result<GuestAccount, GuestCallError>;

/// A guest that has joined.
pub struct Guest {
    pub number: GuestNumber,
    child: Child,
    lines: BufReader<ChildStdout>,
    watcher: JoinHandle<Gone>,
}

impl ServicePool {
    /// A pool of the first `count` host CPUs.
    pub fn start(count: usize) -> Self {
        let mut cpus = baton_os::sys::affinity().expect("the affinity of this process");
        cpus.truncate(count);
        let run = RunConfig {
            guests: Vec::new(),
            late_halts: LateHalts::Allow,
            quiet: true,
            ..RunConfig::default()
        };
        let runner = executor::start(&run, &cpus, Vec::new(), None).expect("a pool");
        Self {
            handle: runner.pool().expect("executors have a pool"),
            runner,
            failures: Arc::default(),
        }
    }

    /// A pool of the first host CPU, in which vCPUs have a priority. `None`: this user may give none, or the host has no
    /// other CPU.
    pub fn start_with_priority() -> Option<Self> {
        let mut cpus = baton_os::sys::affinity().expect("the affinity of this process");
        if cpus.len() == 1 {
            return None;
        }
        cpus.truncate(1);
        let priority = ExecutorPriority::Fifo(1);
        let run = RunConfig {
            guests: Vec::new(),
            late_halts: LateHalts::Allow,
            quiet: true,
            executor_priority: priority,
            ..RunConfig::default()
        };
        let (runner, ..) = match executor::start_pool(&run, (&cpus, &[]), priority) {
            Err(ExecutorError::Priority(_)) => return None,
            started => started.expect("a pool"),
        };
        Some(Self {
            handle: runner.pool().expect("executors have a pool"),
            runner,
            failures: Arc::default(),
        })
    }

    /// A pool of the first host CPU, its host CPUs, what shows its state, and the first two host CPUs. `None`: the host has one.
    pub fn start_with_another() -> Option<(Self, PoolCpus, PoolReader, [usize; 2])> {
        let all = baton_os::sys::affinity().expect("the affinity of this process");
        let &[first, second, ..] = &all[..] else {
            return None;
        };
        let run = RunConfig {
            guests: Vec::new(),
            late_halts: LateHalts::Allow,
            quiet: true,
            ..RunConfig::default()
        };
        let cpus: (&[usize], &[usize]) = (&[first], &[second]);
        let started = executor::start_pool(&run, cpus, ExecutorPriority::Off);
        let (runner, reader, cpus) = started.expect("a pool");
        let pool = Self {
            handle: runner.pool().expect("executors have a pool"),
            runner,
            failures: Arc::default(),
        };
        Some((pool, cpus, reader, [first, second]))
    }

    /// Starts the process of a guest, which joins.
    pub fn guest(
        &self,
        name: &str,
        behaviour: Behaviour,
        vcpus: u32,
        reservation: Option<&str>,
    ) -> Guest {
        let (listener, path) = listen();
        let mut program = Command::new(std::env::current_exe().expect("this program"));
        let reservation = reservation.unwrap_or("-");
        program
            .args(["--exact", "guest_process", "--nocapture"])
            .env(POOL, &path)
            .env(GUEST, format!("{name} {behaviour:?} {vcpus} {reservation}"))
            .stdout(Stdio::piped());
        let mut child = program.spawn().expect("a process");
        let control = Connection::from(net::accept(&listener).expect("a connection"));
        std::fs::remove_file(&path).expect("removed");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        let (number, watcher) = self.admit(control);
        Guest {
            number,
            child,
            lines,
            watcher,
        }
    }

    /// Admits the guest at the other end of `control`, and watches it on a thread.
    fn admit(&self, control: Connection) -> (GuestNumber, JoinHandle<Gone>) {
        let process = ForeignProcess::of_peer(&control).expect("it runs");
        let hello = message(&control);
        assert_eq!(hello, GuestMessage::Hello { protocol: PROTOCOL });
        let welcome = PoolMessage::Welcome { protocol: PROTOCOL };
        control.send(&welcome, None).expect("sent");
        let received = control.receive(Patience::Wait).expect("a request");
        let GuestMessage::Join(request) = received.message else {
            panic!("{:?}", received.message);
        };
        let joined = join::accept(&process, &request, received.file).expect("it makes sense");
        let number = self.join(joined, &request, process);
        let wakes = WakeFile::new().expect("a file");
        let epoll = epoll::create(CreateFlags::CLOEXEC).expect("an instance");
        wakes.watch(&epoll, 1).expect("watched");
        let data = EventData::new_u64(0);
        epoll::add(&epoll, &control, data, EventFlags::IN).expect("watched");
        let admitted = PoolMessage::Admitted { guest: number };
        // A guest that fails at once may be gone.
        let _ = control.send(&admitted, Some(wakes.as_fd()));
        let handle = self.handle.clone();
        let watcher = thread::spawn(move || {
            // The file of the wakes is open as long as it is watched.
            let _wakes = wakes;
            watch(&handle, number, &control, &epoll)
        });
        (number, watcher)
    }

    fn join(
        &self,
        joined: join::JoinedGuest,
        request: &JoinRequest,
        process: ForeignProcess,
    ) -> GuestNumber {
        let report: Arc<dyn ProcessReport> = Arc::clone(&self.failures) as _;
        let joined = self
            .handle
            .join_process(joined, request, (process, 0), report);
        joined.expect("room")
    }

    /// The names of the guests.
    pub fn names(&self) -> Vec<String> {
        let list = self.handle.list().into_iter();
        list.map(|guest| guest.record.name.clone()).collect()
    }
}

/// Reports wakes of guest `number` to the pool until its control socket is closed.
fn watch(handle: &PoolHandle, number: GuestNumber, control: &Connection, epoll: &OwnedFd) -> Gone {
    loop {
        let mut events: Vec<Event> = Vec::with_capacity(4);
        let waited = epoll::wait(epoll, spare_capacity(&mut events), None);
        if waited == Err(rustix::io::Errno::INTR) {
            continue;
        }
        waited.expect("events");
        for event in events {
            if event.data.u64() == 1 {
                handle.wake_reported(number);
            } else if control.receive::<GuestMessage>(Patience::DontWait).is_err() {
                return handle.process_gone(number, None);
            }
        }
    }
}

fn message(control: &Connection) -> GuestMessage {
    let received = control.receive(Patience::Wait).expect("a message");
    received.without_file().expect("no file")
}

/// A socket at which a guest's process connects, with a path of its own.
fn listen() -> (OwnedFd, PathBuf) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("baton-host-{}-{count}", std::process::id()));
    let socket = net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("a socket");
    net::bind(&socket, &SocketAddrUnix::new(&path).expect("a path")).expect("bound");
    net::listen(&socket, 1).expect("listens");
    (socket, path)
}

impl Guest {
    /// The next line that begins with `start`, without that. `None`: the process has ended.
    pub fn line(&mut self, start: &str) -> Option<String> {
        loop {
            let mut line = String::new();
            let read = self.lines.read_line(&mut line).expect("text");
            if read == 0 {
                return None;
            }
            if let Some(rest) = line.trim_end().strip_prefix(start) {
                return Some(rest.trim_start().to_owned());
            }
        }
    }

    /// Waits until the guest's vCPUs have given `more` answers more.
    pub fn progress(&mut self, more: u64) {
        let mut answers = || {
            let line = self.line("answers").expect("it runs");
            line.parse::<u64>().expect("a number")
        };
        let before = answers();
        while answers() < before + more {}
    }

    /// Ends the process. Returns how it ended, and what is left of the guest.
    pub fn kill(mut self) -> (ExitStatus, Gone) {
        // It may have ended.
        let _ = self.child.kill();
        self.wait()
    }

    /// Waits for the end of the process. Returns how it ended, and what is left of the guest.
    pub fn wait(mut self) -> (ExitStatus, Gone) {
        let status = self.child.wait().expect("ended");
        (status, self.watcher.join().expect("a thread"))
    }

    /// What the guest's threads report at the end: the CPU time of each, ns, and what it has seen.
    pub fn ended(&mut self, vcpus: usize) -> Vec<(u64, u64)> {
        let mut ended = || {
            let line = self.line("ran").expect("it ends well");
            let (ran, seen) = line.split_once(' ').expect("two numbers");
            let number = |text: &str| text.parse().expect("a number");
            (number(ran), number(seen))
        };
        (0..vcpus).map(|_| ended()).collect()
    }
}
