//! Hand-overs between two processes, of which one dies at any moment. The guest's process is this program
//! again.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;

use baton_machine::hints::HintSnapshot;
use baton_os::signals::RtSignal;
use baton_os::sys;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketType};
use rustix::process;

use crate::answer::Answer;
use crate::command::{Command, RunCommand};
use crate::connection::{Connection, Patience};
use crate::error::LinkError;
use crate::foreign_process::ForeignProcess;
use crate::join::{self, JoinedGuest};
use crate::message::{GuestMessage, JoinRequest, PROTOCOL, PoolMessage, Share, VcpuRequest};
use crate::pages::GuestPages;
use crate::pool_side::{PoolSide, WaitLimits};
use crate::thread_side::{AnswerStep, GuestPoolLink, ThreadSide};
use crate::wake_file::WakeFile;

/// Set in the guest's process: where the pool listens.
const POOL: &str = "BATON_LINK_TEST_POOL";
/// Set in the guest's process: the step of its second hand-over at which it dies, one of [`STEPS`].
const DIES_AT: &str = "BATON_LINK_TEST_DIES_AT";
/// The steps of a hand-over in the guest's process.
const STEPS: [&str; 5] = ["Waits", "Commanded", "Written", "Published", "Notified"];

const LIMITS: WaitLimits = WaitLimits {
    until: None,
    bound: 60_000_000_000,
    check_every: 10_000_000,
};

fn run(number: u64) -> Command {
    Command::Run(RunCommand {
        until: Some(number),
        host_cpu: 0,
        donated: None,
        is_deferred: false,
        stolen_ns: !number,
    })
}

/// What the guest's process answers to [`run`], and to nothing else.
fn answer_to(number: u64) -> Answer {
    Answer::Preempted(HintSnapshot {
        depth: (number & 0xff) as u32,
        releases: (number >> 8) as u32 & 0xff_ffff,
        ..HintSnapshot::default()
    })
}

/// Not a test of its own: the guest's process.
#[test]
fn guest_process() {
    let Some(path) = std::env::var_os(POOL) else {
        return;
    };
    let pool = Connection::connect(Path::new(&path)).expect("a pool");
    let (pages, file) = GuestPages::create(1).expect("pages");
    let link = GuestPoolLink::new(pages);
    let request = JoinRequest {
        name: "test".into(),
        console: None,
        hints: String::new(),
        weight: 100,
        kick_signal: RtSignal::ExecutorKick.number(),
        restarts: 0,
        is_paused: false,
        vcpus: vec![VcpuRequest {
            tid: sys::thread_id(),
            share: Share::default(),
        }],
    };
    join::request(&pool, request, &file).expect("admitted");
    let mut side = link.vcpus().remove(0);
    thread::spawn(move || {
        // The pool sends nothing more, so this is its end.
        let _ = pool.receive::<PoolMessage>(Patience::Wait);
        link.hang_up();
    });
    let dies_at = std::env::var(DIES_AT).unwrap_or_default();
    assert_eq!(serve(&mut side, &dies_at), LinkError::Gone);
    // Without the output of a test that has passed.
    std::process::exit(0);
}

/// Answers commands until the pool is gone, or until the second hand-over comes to the step `dies_at`.
fn serve(side: &mut ThreadSide, dies_at: &str) -> LinkError {
    let mut count = 0;
    loop {
        let step = |step: &str| {
            if count == 1 && step == dies_at {
                // As `kill -9` from outside, without a core file.
                let _ = process::kill_process(process::getpid(), process::Signal::KILL);
            }
        };
        step("Waits");
        let run = match side.wait() {
            Ok(Command::Run(run)) => run,
            Ok(other) => panic!("{other:?}"),
            Err(error) => return error,
        };
        let number = run.until.expect("a time");
        assert_eq!(run.stolen_ns, !number);
        step("Commanded");
        let after = |done: AnswerStep| step(&format!("{done:?}"));
        side.answer_in_steps(&answer_to(number), after)
            .expect("there was a command");
        count += 1;
    }
}

/// A socket at which a guest's process connects, with a path of its own.
fn listen() -> (OwnedFd, PathBuf) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("baton-link-{}-{count}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let socket = net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("a socket");
    net::bind(&socket, &SocketAddrUnix::new(&path).expect("a path")).expect("bound");
    net::listen(&socket, 1).expect("listens");
    (socket, path)
}

/// The guest's process, from the pool's point of view.
struct GuestProcess {
    child: Child,
    joined: JoinedGuest,
    control: Connection,
}

impl GuestProcess {
    fn start(dies_at: &str) -> Self {
        let (listener, path) = listen();
        let mut program = Program::new(std::env::current_exe().expect("this program"));
        program
            .args(["--exact", "process_tests::guest_process", "--nocapture"])
            .env(POOL, &path)
            .env(DIES_AT, dies_at)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = program.spawn().expect("a process");
        let control = Connection::from(net::accept(&listener).expect("a connection"));
        std::fs::remove_file(&path).expect("removed");
        let joined = admit(&control);
        Self {
            child,
            joined,
            control,
        }
    }

    /// Hands the vCPU over until its process is gone or `count` answers have come. Returns how many came.
    /// The process is killed at some moment after the answer `kill_after`.
    fn hand_over(mut self, count: u32, kill_after: u32) -> u32 {
        let mut side = self.joined.vcpus.remove(0).side;
        let (link, control, child) = (&self.joined.link, &self.control, &mut self.child);
        let (kill, killed) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(|| {
                // The process sends nothing more.
                let end = control.receive::<GuestMessage>(Patience::Wait);
                assert!(end.is_err());
                link.hang_up();
            });
            scope.spawn(move || {
                // Also when the sender is dropped.
                let _ = killed.recv();
                let _ = child.kill();
                child.wait().expect("ended");
            });
            for number in 0..count {
                match hand_over_once(&mut side, u64::from(number)) {
                    Ok(answer) => assert_eq!(answer, answer_to(u64::from(number))),
                    Err(error) => {
                        assert_eq!(error, LinkError::Gone);
                        return number;
                    }
                }
                if number == kill_after {
                    kill.send(()).expect("it waits");
                }
            }
            drop(kill);
            count
        })
    }

    /// Ends the connection, as the end of the pool would. Returns how the process ended.
    fn outlive_pool(mut self) -> ExitStatus {
        let mut side = self.joined.vcpus.remove(0).side;
        assert_eq!(hand_over_once(&mut side, 3), Ok(answer_to(3)));
        drop((self.control, self.joined));
        self.child.wait().expect("ended")
    }
}

/// Admits the guest at the other end of `control`.
fn admit(control: &Connection) -> JoinedGuest {
    let process = ForeignProcess::of_peer(control).expect("it runs");
    let hello = message(control);
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
    joined
}

fn message(control: &Connection) -> GuestMessage {
    let received = control.receive(Patience::Wait).expect("a message");
    received.without_file().expect("no file")
}

fn hand_over_once(side: &mut PoolSide, number: u64) -> Result<Answer, LinkError> {
    side.give(&run(number))?;
    side.wait(&LIMITS, sys::monotonic_ns)
}

#[test]
fn a_process_that_is_killed_at_any_moment_is_gone_and_its_last_answer_was_right() {
    // Xorshift; the kernel's scheduling makes the moments random in any case.
    let mut random = 0x2545_f491_u32;
    let mut total = 0;
    while total < 100_000 {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        let kill_after = random % 5_000;
        let answers = GuestProcess::start("").hand_over(u32::MAX, kill_after);
        assert!(answers > kill_after);
        total += answers;
    }
}

#[test]
fn a_process_that_dies_at_a_step_has_answered_if_it_had_published_the_answer() {
    for (index, step) in STEPS.into_iter().enumerate() {
        let answers = GuestProcess::start(step).hand_over(10, u32::MAX);
        let has_published = index >= 3;
        assert_eq!(answers, 1 + u32::from(has_published), "{step}");
    }
}

#[test]
fn a_guest_outlives_its_pool() {
    assert!(GuestProcess::start("").outlive_pool().success());
}
