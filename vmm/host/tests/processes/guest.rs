//! The process of a guest.

use std::io::Write;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use baton_link::LinkError;
use baton_link::answer::{Answer, Rang};
use baton_link::command::{Command, RunCommand};
use baton_link::connection::{Connection, Patience};
use baton_link::join;
use baton_link::message::{JoinRequest, PoolMessage, ReservationRequest, Share, VcpuRequest};
use baton_link::pages::GuestPages;
use baton_link::thread_side::{GuestPoolLink, ThreadSide};
use baton_link::wake_file::WakeReport;
use baton_machine::Doorbell;
use baton_machine::hints::{HintSnapshot, PublishedWait};
use baton_os::signals::{RtSignal, install_empty_handler};
use baton_os::sys::{self, SchedPolicy};
use vcpu_sched::{Exhaustion, Reservation, WaitKind};

/// Set in the guest's process: where the pool listens.
pub const POOL: &str = "BATON_HOST_TEST_POOL";
/// Set in the guest's process: name, behaviour, number of vCPUs, reservation or a dash.
pub const GUEST: &str = "BATON_HOST_TEST_GUEST";

/// The lock of [`Behaviour::Waits`].
const LOCK: u64 = 7;
/// CPU time that one of the other threads uses, ns.
pub const DEVICE_NS: u64 = 100_000_000;

/// What a guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Its vCPUs compute.
    Busy,
    /// They compute a little, halt, and wake by themselves.
    Halts,
    /// They hold a lock when their time is up, and release it soon.
    Holds,
    /// All vCPUs but the last one wait for the last one, which holds a lock.
    Waits,
    /// One of its threads that are not vCPUs' computes [`DEVICE_NS`].
    Devices,
    /// Its first vCPU answers what makes no sense.
    Lies,
    /// Its first vCPU does not come back.
    StaysAway,
    /// Its vCPUs compute without a command after each kick.
    RunsUncommanded,
    /// Its first vCPU halts, and computes when it is to sleep.
    ComputesAsleep,
    /// Its vCPUs ring for a wake, again and again, whatever the time is.
    RingsOn,
    /// Its vCPUs sleep when they are to run.
    SleepsCommanded,
    /// Its first vCPU's thread never waits for a command.
    NeverAttends,
    /// Its vCPUs compute with the priority of the pool, and sleep without.
    HasPriority,
    /// Its first vCPU computes on another host CPU than it is told, as long as it has the priority there.
    Wanders,
    /// Its vCPUs end one after the other.
    Ends,
}

impl Behaviour {
    pub const ALL: [Self; 15] = [
        Self::Busy,
        Self::Halts,
        Self::Holds,
        Self::Waits,
        Self::Devices,
        Self::Lies,
        Self::StaysAway,
        Self::RunsUncommanded,
        Self::ComputesAsleep,
        Self::RingsOn,
        Self::SleepsCommanded,
        Self::NeverAttends,
        Self::HasPriority,
        Self::Wanders,
        Self::Ends,
    ];
}

impl FromStr for Behaviour {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let named = |behaviour: &Self| format!("{behaviour:?}") == name;
        let found = Self::ALL.into_iter().find(named);
        found.ok_or_else(|| name.to_owned())
    }
}

/// Becomes the guest's process, if this is one. Its exit ends the program.
pub fn become_guest() {
    let (Some(pool), Ok(guest)) = (std::env::var_os(POOL), std::env::var(GUEST)) else {
        return;
    };
    let fields: Vec<&str> = guest.split(' ').collect();
    let [name, behaviour, vcpus, reservation] = fields[..] else {
        panic!("{guest}");
    };
    let behaviour = behaviour.parse().expect("a behaviour");
    let vcpus = vcpus.parse().expect("a number");
    let reservation = reservation.parse().ok().map(reservation_request);
    run_guest(Path::new(&pool), name, behaviour, vcpus, reservation);
    // Without the output of a test that has passed.
    std::process::exit(0);
}

fn reservation_request(reservation: Reservation) -> ReservationRequest {
    ReservationRequest {
        budget_ns: reservation.budget(),
        period_ns: reservation.period(),
        deadline_ns: reservation.deadline(),
        hard: reservation.exhaustion() == Exhaustion::Hard,
    }
}

fn run_guest(
    pool: &Path,
    name: &str,
    behaviour: Behaviour,
    vcpus: u32,
    reservation: Option<ReservationRequest>,
) {
    let signal = RtSignal::ExecutorKick.number();
    install_empty_handler(signal).expect("a handler");
    let pool = Connection::connect(pool).expect("a pool");
    let (pages, file) = GuestPages::create(vcpus).expect("pages");
    let link = GuestPoolLink::new(pages);
    let (send_tid, tids) = mpsc::channel();
    let mut starts = Vec::new();
    let mut threads = Vec::new();
    for (index, side) in (0..).zip(link.vcpus()) {
        let (start, started) = mpsc::channel();
        let send_tid = send_tid.clone();
        threads.push(thread::spawn(move || {
            send_tid.send((index, sys::thread_id())).expect("received");
            let wakes: Arc<WakeReport> = started.recv().expect("admitted");
            VcpuThread::new(side, (index, vcpus), behaviour, wakes).serve()
        }));
        starts.push(start);
    }
    let mut tids: Vec<(u32, i32)> = tids.iter().take(vcpus as usize).collect();
    tids.sort_unstable();
    let share = Share {
        reservation,
        host_cpus: None,
        weight: None,
    };
    let vcpu = |(_, tid)| VcpuRequest {
        tid,
        share: share.clone(),
    };
    let request = JoinRequest {
        name: name.into(),
        console: None,
        hints: "page".into(),
        weight: 100,
        kick_signal: signal,
        restarts: 0,
        is_paused: false,
        vcpus: tids.into_iter().map(vcpu).collect(),
    };
    let admitted = join::request(&pool, request, &file).expect("admitted");
    let wakes = Arc::new(admitted.wakes);
    for start in starts {
        start.send(Arc::clone(&wakes)).expect("it waits");
    }
    if behaviour == Behaviour::Devices {
        use_cpu(DEVICE_NS);
        print("device");
    }
    thread::spawn(move || {
        // The pool sends nothing more, so this is its end.
        let _ = pool.receive::<PoolMessage>(Patience::Wait);
        link.hang_up();
    });
    for thread in threads {
        let ended = thread.join().expect("a thread");
        print(&format!("ran {} {}", ended.ran, ended.seen));
    }
}

/// Uses this much CPU time of the calling thread, ns.
fn use_cpu(ns: u64) {
    let end = sys::thread_cpu_ns() + ns;
    while sys::thread_cpu_ns() < end {}
}

/// Whether the calling thread runs before ordinary ones.
fn has_priority() -> bool {
    matches!(sys::policy_of(0), Ok(SchedPolicy::Fifo { .. }))
}

/// Prints a line for the test.
fn print(line: &str) {
    let mut out = std::io::stdout().lock();
    // A test that has failed reads nothing.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// What a vCPU's thread has to report at its end.
struct Ended {
    /// CPU time from its first command to its last answer, ns.
    ran: u64,
    /// How often it was shown what its behaviour is about.
    seen: u64,
}

/// A vCPU's thread.
struct VcpuThread {
    side: ThreadSide,
    index: u32,
    of: u32,
    behaviour: Behaviour,
    wakes: Arc<WakeReport>,
    ended: Ended,
}

/// Answers so far of all vCPUs, for the progress that the test waits for.
static ANSWERS: AtomicU64 = AtomicU64::new(0);

impl VcpuThread {
    fn new(
        side: ThreadSide,
        (index, of): (u32, u32),
        behaviour: Behaviour,
        wakes: Arc<WakeReport>,
    ) -> Self {
        Self {
            side,
            index,
            of,
            behaviour,
            wakes,
            ended: Ended { ran: 0, seen: 0 },
        }
    }

    /// Does what the pool commands until that is to stop, or the pool is gone.
    fn serve(mut self) -> Ended {
        let (mut first, mut has_run) = (None, false);
        if self.behaviour == Behaviour::NeverAttends && self.is_first() {
            print("away");
            loop {
                thread::park();
            }
        }
        loop {
            let command = match self.side.wait() {
                Ok(command) => command,
                Err(LinkError::Gone) => return self.ended,
                Err(error) => panic!("{error}"),
            };
            let first = *first.get_or_insert_with(sys::thread_cpu_ns);
            if matches!(command, Command::Run(_)) && !std::mem::replace(&mut has_run, true) {
                print("commanded");
            }
            let answer = match command {
                Command::Run(run) => self.run(&run),
                Command::Sleep => self.sleep(),
                Command::Stop => return self.ended,
            };
            self.ended.ran = sys::thread_cpu_ns() - first;
            let was_kicked = self.side.is_kicked();
            self.side.answer(&answer).expect("commanded");
            if answer == Answer::Woken && !self.side.was_watched() {
                self.wakes.report();
            }
            if answer == Answer::Ended {
                return self.ended;
            }
            if was_kicked && self.behaviour == Behaviour::RunsUncommanded {
                use_cpu(200_000_000);
                print("computed");
            }
            let answers = ANSWERS.fetch_add(1, Ordering::Relaxed) + 1;
            if answers.is_power_of_two() {
                print(&format!("answers {answers}"));
            }
        }
    }

    fn is_first(&self) -> bool {
        self.index == 0
    }

    fn run(&mut self, run: &RunCommand) -> Answer {
        let cpu = run.host_cpu as usize;
        if sys::affinity().ok() != Some(vec![cpu]) {
            sys::set_affinity(&[cpu]).expect("a CPU of the pool");
        }
        let mut hints = HintSnapshot::default();
        match self.behaviour {
            Behaviour::Busy | Behaviour::Devices | Behaviour::RunsUncommanded => {
                self.compute_until(run)
            }
            Behaviour::Halts => {
                use_cpu(100_000);
                return Answer::Halted(hints);
            }
            Behaviour::ComputesAsleep => return Answer::Halted(hints),
            Behaviour::Holds if run.is_deferred => {
                self.ended.seen += 1;
                let (doorbell, payload) = (Doorbell::Release { to: None }, None);
                return Answer::Rang(Rang {
                    doorbell,
                    payload,
                    hints,
                });
            }
            Behaviour::Holds => {
                self.compute_until(run);
                hints.depth = 1;
            }
            Behaviour::Waits => return self.wait_for_lock(run),
            Behaviour::Lies if self.is_first() => return Answer::Woken,
            Behaviour::StaysAway if self.is_first() => use_cpu(u64::MAX / 2),
            Behaviour::Wanders if self.is_first() && has_priority() => self.wander(run),
            Behaviour::Lies
            | Behaviour::StaysAway
            | Behaviour::NeverAttends
            | Behaviour::Wanders => self.compute_until(run),
            Behaviour::HasPriority => {
                self.ended.seen += u64::from(has_priority());
                use_cpu(100_000);
                return Answer::Halted(hints);
            }
            Behaviour::RingsOn => {
                let (doorbell, payload) = (Doorbell::Wake { target: 0 }, None);
                return Answer::Rang(Rang {
                    doorbell,
                    payload,
                    hints,
                });
            }
            Behaviour::SleepsCommanded => {
                let moment = Duration::from_millis(5);
                thread::sleep(moment);
                self.ended.seen += moment.as_nanos() as u64;
            }
            Behaviour::Ends => return Answer::Ended,
        }
        Answer::Preempted(hints)
    }

    /// Computes on another host CPU than that of `run` until the priority is gone or the command ends.
    fn wander(&mut self, run: &RunCommand) {
        let elsewhere = |cpu: &usize| *cpu != run.host_cpu as usize;
        let all: Vec<usize> = (0..1024).filter(elsewhere).collect();
        sys::set_affinity(&all).expect("the host has another CPU");
        while has_priority() {
            if self.side.is_kicked() {
                return;
            }
        }
        print("lost");
    }

    /// Computes until the command ends.
    fn compute_until(&self, run: &RunCommand) {
        let is_over = || run.until.is_some_and(|until| sys::monotonic_ns() >= until);
        while !self.side.is_kicked() && !is_over() {}
    }

    /// The last vCPU holds the lock for a while when it runs for another, and the others wait for it.
    fn wait_for_lock(&mut self, run: &RunCommand) -> Answer {
        let last = self.of - 1;
        let mut hints = HintSnapshot::default();
        let doorbell = match self.index == last {
            true => {
                if let Some(donated) = run.donated {
                    assert!(donated.donor < last && donated.lock == LOCK);
                    self.ended.seen += 1;
                }
                use_cpu(200_000);
                Doorbell::Release { to: None }
            }
            false => {
                use_cpu(50_000);
                hints.wait = Some(PublishedWait {
                    kind: WaitKind::Spin,
                    lock: LOCK,
                    holder: last,
                    holder_releases: 0,
                });
                Doorbell::Wait
            }
        };
        Answer::Rang(Rang {
            doorbell,
            payload: None,
            hints,
        })
    }

    fn sleep(&self) -> Answer {
        assert!(!has_priority(), "without a command to run");
        if self.behaviour == Behaviour::ComputesAsleep && self.is_first() {
            use_cpu(u64::MAX / 2);
        }
        // A timer of the guest.
        for _ in 0..10 {
            if self.side.is_kicked() {
                break;
            }
            thread::sleep(Duration::from_micros(100));
        }
        Answer::Woken
    }
}
