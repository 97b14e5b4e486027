//! What the link costs: a hand-over to a vCPU's thread and back, beside the same between two threads of one
//! process; a kick and the answer to it, by each way there is; and CPU time of a foreign thread.
//!
//! Prints medians in ns. The ways take turns, so that a disturbance of the host meets all of them. Needs two
//! CPUs.

#![allow(missing_docs, reason = "a program")]

use std::hint::{black_box, spin_loop};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;

use baton_link::answer::Answer;
use baton_link::command::{Command, RunCommand};
use baton_link::connection::{Connection, Patience};
use baton_link::foreign_process::ForeignProcess;
use baton_link::join::{self, JoinedGuest, JoinedVcpu};
use baton_link::message::{GuestMessage, JoinRequest, PROTOCOL, PoolMessage, Share, VcpuRequest};
use baton_link::pages::GuestPages;
use baton_link::pool_side::{PoolGuestLink, PoolSide, WaitLimits};
use baton_link::thread_side::{GuestPoolLink, ThreadSide};
use baton_link::wake_file::WakeFile;
use baton_machine::hints::HintSnapshot;
use baton_os::signals::{self, RtSignal};
use baton_os::sys;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketType};

mod handoff;

use handoff::Handoff;

/// Set in the guest's process: where the pool listens.
const POOL: &str = "BATON_LINK_BENCH_POOL";
/// The executor's and the vCPU's host CPU.
const EXECUTOR_CPU: usize = 0;
/// The host CPU of the vCPU that is kicked.
const OTHER_CPU: usize = 1;

const ROUNDS: usize = 60;
const TRIPS: usize = 500;
const KICKS: usize = 50;

const LIMITS: WaitLimits = WaitLimits {
    until: None,
    bound: 60_000_000_000,
    check_every: 10_000_000,
};

/// What the threads of the guest's process do, in the order of the vCPUs.
#[derive(Clone, Copy)]
enum Role {
    /// Answers at once.
    Echo,
    /// Runs until it is kicked.
    Runs,
    /// Kicks the thread that runs, as a thread in the guest's process would for the pool.
    Kicks,
}

const ROLES: [(Role, usize); 3] = [
    (Role::Echo, EXECUTOR_CPU),
    (Role::Runs, OTHER_CPU),
    (Role::Kicks, EXECUTOR_CPU),
];

static KICKED: AtomicBool = AtomicBool::new(false);
static RUNNING_THREAD: AtomicI32 = AtomicI32::new(0);

extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    KICKED.store(true, Ordering::Relaxed);
}

fn signo() -> i32 {
    RtSignal::ExecutorKick.number()
}

fn run() -> Command {
    Command::Run(RunCommand {
        until: None,
        host_cpu: 0,
        donated: None,
        is_deferred: false,
        stolen_ns: 0,
    })
}

fn main() {
    if let Some(path) = std::env::var_os(POOL) {
        guest(Path::new(&path));
        return;
    }
    // Cargo passes `--bench`; tests only check that it starts.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    sys::set_affinity(&[EXECUTOR_CPU]).expect("pinned");
    let (mut child, mut joined, _control) = start_guest();
    let mut vcpus = joined.vcpus.drain(..);
    let (Some(echo), Some(runs), Some(kicks)) = (vcpus.next(), vcpus.next(), vcpus.next()) else {
        panic!("the guest has three vCPUs");
    };
    hand_overs(echo.side);
    kick_ways(runs, kicks.side, child.id());
    child.kill().expect("killed");
    child.wait().expect("ended");
}

/// Hand-overs between two processes, two threads with a page, and two threads with `vmm/host`'s code.
fn hand_overs(mut process: PoolSide) {
    let (pages, file) = GuestPages::create(1).expect("pages");
    let pool = PoolGuestLink::new(GuestPages::accept(&file, 1).expect("accepted"));
    let mut own_thread = pool.vcpus().remove(0);
    let guest = GuestPoolLink::new(pages);
    let mut side = guest.vcpus().remove(0);
    thread::spawn(move || echo(&mut side));
    let (there, back) = (Handoff::<u64>::new(), Handoff::<u64>::new());
    thread::spawn({
        let (there, back) = (there.clone(), back.clone());
        move || {
            loop {
                back.put(there.take());
            }
        }
    });
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        measure(&mut times[0], TRIPS, || {
            there.put(1);
            black_box(back.take());
        });
        measure(&mut times[1], TRIPS, || hand_over(&mut own_thread));
        measure(&mut times[2], TRIPS, || hand_over(&mut process));
    }
    println!("hand-over and back, on one CPU");
    for (way, times) in [
        "two threads, Handoff",
        "two threads, a page",
        "two processes, a page",
    ]
    .iter()
    .zip(&mut times)
    {
        println!("  {way:<40} {:>7}", median(times));
    }
}

/// A kick of a thread that runs on another CPU, until its answer, and reads of that thread's CPU time.
fn kick_ways(mut runs: JoinedVcpu, mut kicker: PoolSide, guest: u32) {
    let mut times = [const { Vec::new() }; 2];
    let mut clocks = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        for _ in 0..KICKS {
            let kick = runs.kick.clone();
            times[0].push(kick_once(&mut runs.side, || {
                kick.kick(sys::monotonic_ns());
            }));
            times[1].push(kick_once(&mut runs.side, || {
                kicker.give(&run()).expect("given");
            }));
            kicker.wait(&LIMITS, sys::monotonic_ns).expect("answered");
        }
        measure(&mut clocks[0], TRIPS, || {
            black_box(runs.clock.take_ns().expect("it lives"));
        });
        measure(&mut clocks[1], TRIPS, || {
            black_box(process_clock(guest));
        });
    }
    println!("kick of a thread on another CPU, and its answer");
    for (way, times) in ["signal by pidfd", "thread that signals"]
        .iter()
        .zip(&mut times)
    {
        println!("  {way:<40} {:>7}", median(times));
    }
    println!("CPU time");
    for (way, times) in ["thread, schedstat", "process, its clock"]
        .iter()
        .zip(&mut clocks)
    {
        println!("  {way:<40} {:>7}", median(times));
    }
}

fn hand_over(side: &mut PoolSide) {
    side.give(&run()).expect("given");
    let answer = side.wait(&LIMITS, sys::monotonic_ns);
    black_box(answer.expect("answered"));
}

/// The time from a kick to the answer, ns.
fn kick_once(side: &mut PoolSide, kick: impl FnOnce()) -> u64 {
    side.give(&run()).expect("given");
    // Until the thread runs on its own CPU.
    let begin = sys::monotonic_ns() + 30_000;
    while sys::monotonic_ns() < begin {
        spin_loop();
    }
    let from = sys::monotonic_ns();
    kick();
    side.wait(&LIMITS, sys::monotonic_ns).expect("answered");
    sys::monotonic_ns() - from
}

fn measure(times: &mut Vec<u64>, trips: usize, mut trip: impl FnMut()) {
    for _ in 0..trips {
        let from = sys::monotonic_ns();
        trip();
        times.push(sys::monotonic_ns() - from);
    }
}

fn median(times: &mut [u64]) -> u64 {
    times.sort_unstable();
    times[times.len() / 2]
}

/// CPU time of a process, ns.
fn process_clock(pid: u32) -> u64 {
    // `CPUCLOCK_SCHED` of a process, as clock_getcpuclockid(3) has it.
    let clock = (!(pid as libc::clockid_t) << 3) | 2;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel fills in the time.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Starts the guest's process, and admits it. The process ends with the connection.
fn start_guest() -> (Child, JoinedGuest, Connection) {
    let name = format!("baton-link-bench-{}", std::process::id());
    let path: PathBuf = std::env::temp_dir().join(name);
    let socket = net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("a socket");
    net::bind(&socket, &SocketAddrUnix::new(&path).expect("a path")).expect("bound");
    net::listen(&socket, 1).expect("listens");
    let mut program = Program::new(std::env::current_exe().expect("this program"));
    let child = program.env(POOL, &path).spawn().expect("a process");
    let control = Connection::from(net::accept(&socket).expect("a connection"));
    std::fs::remove_file(&path).expect("removed");

    let process = ForeignProcess::of_peer(&control).expect("it runs");
    let hello: GuestMessage = control.receive(Patience::Wait).expect("hello").message;
    assert_eq!(hello, GuestMessage::Hello { protocol: PROTOCOL });
    let welcome = PoolMessage::Welcome { protocol: PROTOCOL };
    control.send(&welcome, None).expect("sent");
    let request = control.receive(Patience::Wait).expect("a request");
    let GuestMessage::Join(join) = request.message else {
        panic!("{:?}", request.message);
    };
    let joined = join::accept(&process, &join, request.file).expect("joined");
    let wakes = WakeFile::new().expect("a file");
    let admitted = PoolMessage::Admitted { guest: 1 };
    control.send(&admitted, Some(wakes.as_fd())).expect("sent");
    (child, joined, control)
}

/// The guest's process.
fn guest(path: &Path) {
    signals_are_handled();
    let (pages, file): (GuestPages, OwnedFd) = GuestPages::create(3).expect("pages");
    let link = GuestPoolLink::new(pages);
    let (send, tids) = std::sync::mpsc::channel();
    for (mut side, (role, cpu)) in link.vcpus().into_iter().zip(ROLES) {
        let send = send.clone();
        thread::spawn(move || {
            sys::set_affinity(&[cpu]).expect("pinned");
            send.send((role as usize, sys::thread_id()))
                .expect("received");
            match role {
                Role::Echo => echo(&mut side),
                Role::Runs => runs(&mut side),
                Role::Kicks => kicks(&mut side),
            }
        });
    }
    let mut tids: Vec<_> = tids.iter().take(ROLES.len()).collect();
    tids.sort_unstable();
    RUNNING_THREAD.store(tids[Role::Runs as usize].1, Ordering::Relaxed);
    let share = Share::default();
    let vcpus = tids.iter().map(|&(_, tid)| VcpuRequest {
        tid,
        share: share.clone(),
    });
    let request = JoinRequest {
        name: "bench".into(),
        console: None,
        hints: String::new(),
        weight: 100,
        kick_signal: signo(),
        restarts: 0,
        is_paused: false,
        vcpus: vcpus.collect(),
    };
    let pool = Connection::connect(path).expect("a pool");
    join::request(&pool, request, &file).expect("admitted");
    // Until the pool kills this process or ends.
    let _ = pool.receive::<PoolMessage>(Patience::Wait);
}

fn signals_are_handled() {
    vmm_sys_util::signal::register_signal_handler(signo(), on_kick).expect("a handler");
}

fn answer() -> Answer {
    Answer::Preempted(HintSnapshot::default())
}

fn echo(side: &mut ThreadSide) {
    while side.wait().is_ok() {
        side.answer(&answer()).expect("commanded");
    }
}

fn runs(side: &mut ThreadSide) {
    while side.wait().is_ok() {
        while !KICKED.swap(false, Ordering::Relaxed) {
            spin_loop();
        }
        side.answer(&answer()).expect("commanded");
    }
}

fn kicks(side: &mut ThreadSide) {
    while side.wait().is_ok() {
        signals::send(RUNNING_THREAD.load(Ordering::Relaxed), signo());
        side.answer(&answer()).expect("commanded");
    }
}
