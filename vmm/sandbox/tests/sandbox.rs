//! Each case starts this program again as a process that enters a sandbox and tries something there. What it prints
//! and how it ends has to be as expected, as root and as an ordinary user.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, exit};
use std::{env, io, thread};

use baton_sandbox::{Reach, Sandbox, SandboxError, User};

/// The user of the cases for ordinary users.
const NOBODY: u32 = 65534;

/// What a case expects of the process.
enum Expected {
    /// It prints this and ends well.
    Prints(&'static str),
    /// It is ended at this system call.
    EndsAt(&'static str),
}

/// Something that a process tries after it has entered.
struct Case {
    name: &'static str,
    action: fn(),
    expected: Expected,
}

const CASES: &[Case] = &[
    prints("reads_what_is_reachable", reads_what_is_reachable, "text"),
    prints("has_nothing_else", has_nothing_else, "dev etc-missing work"),
    prints(
        "cannot_write_what_it_may_read",
        cannot_write_what_it_may_read,
        "EROFS EROFS",
    ),
    prints(
        "writes_and_creates_where_it_may",
        writes_and_creates_where_it_may,
        "written",
    ),
    prints(
        "connects_to_sockets_in_reach",
        connects_to_sockets_in_reach,
        "answer",
    ),
    prints("sees_no_other_process", sees_no_other_process, "1"),
    prints("starts_threads", starts_threads, "from a thread"),
    prints("knows_its_threads_times", knows_its_threads_times, "3"),
    prints("gets_no_privileges", gets_no_privileges, "0 0 0"),
    ends("has_no_network", has_no_network, "socket"),
    ends("starts_no_program", starts_no_program, "execve"),
    ends("has_no_other_process", has_no_other_process, "clone"),
    ends("signals_nobody", signals_nobody, "kill"),
    ends(
        "signals_no_thread_of_others",
        signals_no_thread_of_others,
        "tgkill",
    ),
    ends("mounts_nothing", mounts_nothing, "mount"),
    ends("traces_nobody", traces_nobody, "ptrace"),
    ends("executes_no_memory", executes_no_memory, "mmap"),
    ends("makes_no_namespace", makes_no_namespace, "unshare"),
    ends("makes_no_other_requests", makes_no_other_requests, "ioctl"),
];

const fn prints(name: &'static str, action: fn(), text: &'static str) -> Case {
    Case {
        name,
        action,
        expected: Expected::Prints(text),
    }
}

const fn ends(name: &'static str, action: fn(), call: &'static str) -> Case {
    Case {
        name,
        action,
        expected: Expected::EndsAt(call),
    }
}

fn main() {
    let arguments: Vec<String> = env::args().collect();
    if let [_, mark, name] = arguments.as_slice()
        && mark == "in-sandbox"
    {
        return within(name);
    }
    let scratch = Scratch::new();
    let mut failed = Vec::new();
    for user in [None, Some(NOBODY)] {
        for case in CASES {
            let output = scratch.start(case.name, user);
            if let Err(what) = case.expected.check(&output) {
                failed.push(format!("{} as {user:?}: {what}", case.name));
            }
        }
    }
    failed.extend(several_threads_cannot_enter());
    failed.extend(belongs_to_the_user_that_it_gets(&scratch));
    println!("{} cases, {} failed", 2 * CASES.len() + 2, failed.len());
    for failure in &failed {
        println!("{failure}");
    }
    exit(i32::from(!failed.is_empty()));
}

/// The files of the cases, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = env::temp_dir().join(format!("baton-sandbox-{}", std::process::id()));
        fs::create_dir_all(path.join("read")).expect("a directory");
        fs::create_dir_all(path.join("write")).expect("a directory");
        fs::write(path.join("read/file"), "text").expect("a file");
        fs::write(path.join("secret"), "secret").expect("a file");
        for path in [path.join("write"), path.join("read")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("a mode");
        }
        fs::copy(
            env::current_exe().expect("this program"),
            path.join("program"),
        )
        .expect("a copy");
        Self(path)
    }

    fn start(&self, case: &str, user: Option<u32>) -> Output {
        let mut command = Command::new(self.0.join("program"));
        command.args(["in-sandbox", case]).current_dir(&self.0);
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        command.output().expect("this program")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Expected {
    fn check(&self, output: &Output) -> Result<(), String> {
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        let good = match self {
            Self::Prints(expected) => output.status.success() && text.trim() == *expected,
            Self::EndsAt(call) => {
                output.status.signal() == Some(libc::SIGSYS)
                    && errors.contains(&format!("system call {call},"))
            }
        };
        good.then_some(())
            .ok_or_else(|| format!("{}: {text:?} {errors:?}", output.status))
    }
}

/// The process of the case `name`.
fn within(name: &str) {
    let case = CASES.iter().find(|case| case.name == name).expect("a case");
    let user = env::var("SANDBOX_USER").ok();
    let user = user.map(|user| user.parse().expect("a number"));
    let sandbox = Sandbox {
        reachable: vec![
            Reach::read("read"),
            Reach::write("write"),
            Reach::device("/dev/null"),
            Reach::read("missing"),
        ],
        keep_network: false,
        user: user.map(|user| User { user, group: user }),
    };
    if let Err(error) = sandbox.enter() {
        eprintln!("{error}");
        exit(1);
    }
    (case.action)();
}

fn reads_what_is_reachable() {
    println!("{}", fs::read_to_string("read/file").expect("reachable"));
}

fn has_nothing_else() {
    let mut names: Vec<String> = fs::read_dir("/")
        .expect("a root directory")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .filter(|name| name == "dev" || name == "etc")
        .collect();
    if !Path::new("/etc/passwd").exists() && !Path::new("secret").exists() {
        names.push("etc-missing".to_owned());
    }
    if env::current_dir().is_ok_and(|here| here.exists()) {
        names.push("work".to_owned());
    }
    println!("{}", names.join(" "));
}

fn errno(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EROFS) => "EROFS",
        Some(libc::EACCES) => "EACCES",
        _ => "another error",
    }
}

fn cannot_write_what_it_may_read() {
    let in_reach = fs::write("read/new", "x").expect_err("only for reading");
    let in_root = File::create("/new").expect_err("the root directory is fixed");
    println!("{} {}", errno(&in_reach), errno(&in_root));
}

fn writes_and_creates_where_it_may() {
    let path = Path::new("write").join(format!("new-{}", std::process::id()));
    fs::write(&path, "written").expect("a file");
    println!("{}", fs::read_to_string(&path).expect("the file"));
}

fn connects_to_sockets_in_reach() {
    let path = PathBuf::from(format!("write/socket-{}", std::process::id()));
    let listener = UnixListener::bind(&path).expect("a socket");
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.write_all(b"answer").expect("a client that reads");
    });
    let mut answer = String::new();
    let mut client = UnixStream::connect(&path).expect("a server");
    client.read_to_string(&mut answer).expect("an answer");
    server.join().expect("the server");
    println!("{answer}");
}

fn sees_no_other_process() {
    let names = fs::read_dir("/proc").expect("/proc");
    let names = names.map(|entry| entry.expect("an entry").file_name());
    let processes = names.filter(|name| name.to_string_lossy().parse::<u32>().is_ok());
    println!("{}", processes.count());
}

fn starts_threads() {
    let thread = thread::Builder::new().name("one".to_owned());
    let thread = thread
        .spawn(|| println!("from a thread"))
        .expect("a thread");
    thread.join().expect("no panic");
}

fn knows_its_threads_times() {
    // SAFETY: gettid has no requirements.
    let thread = unsafe { libc::gettid() };
    let path = format!("/proc/self/task/{thread}/schedstat");
    let text = fs::read_to_string(path).expect("the thread's times");
    println!("{}", text.split_whitespace().count());
}

fn gets_no_privileges() {
    let status = fs::read_to_string("/proc/self/status").expect("/proc/self");
    let set = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        u64::from_str_radix(line.expect("a set").trim_start_matches(':').trim(), 16).expect("hex")
    };
    // CAP_PERFMON may stay.
    let without = |name| set(name) & !(1 << 38);
    println!(
        "{} {} {}",
        without("CapEff"),
        without("CapPrm"),
        without("CapInh")
    );
}

fn has_no_network() {
    // SAFETY: the call takes numbers.
    unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) };
}

fn starts_no_program() {
    let _ = Command::new("/bin/true").exec();
}

fn has_no_other_process() {
    // SAFETY: the child ends at once.
    if unsafe { libc::fork() } == 0 {
        exit(0);
    }
}

fn signals_nobody() {
    // SAFETY: signal 0 does nothing.
    unsafe { libc::kill(1, 0) };
}

fn signals_no_thread_of_others() {
    // SAFETY: signal 0 does nothing.
    unsafe { libc::syscall(libc::SYS_tgkill, 1, 1, 0) };
}

fn mounts_nothing() {
    let none = std::ptr::null();
    // SAFETY: the kernel accepts null pointers here.
    unsafe { libc::mount(none, c"/".as_ptr(), none, libc::MS_REMOUNT, none.cast()) };
}

fn traces_nobody() {
    let none: *mut libc::c_void = std::ptr::null_mut();
    // SAFETY: the request takes no pointers.
    unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, none, none) };
}

fn executes_no_memory() {
    let all = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping.
    unsafe { libc::mmap(std::ptr::null_mut(), 4096, all, flags, -1, 0) };
}

fn makes_no_namespace() {
    // SAFETY: the call takes a number.
    unsafe { libc::unshare(libc::CLONE_NEWUSER) };
}

fn makes_no_other_requests() {
    let null = File::open("/dev/null").expect("reachable");
    // SAFETY: TIOCSTI reads one byte.
    unsafe {
        libc::ioctl(
            std::os::fd::AsRawFd::as_raw_fd(&null),
            libc::TIOCSTI,
            c"x".as_ptr(),
        )
    };
}

/// In this process, which does not enter.
fn several_threads_cannot_enter() -> Option<String> {
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = thread::spawn(move || stopped.recv());
    let result = Sandbox::default().enter();
    drop(stop);
    let _ = thread.join();
    match result {
        Err(SandboxError::Threads(2)) => None,
        other => Some(format!("several threads: {other:?}")),
    }
}

fn belongs_to_the_user_that_it_gets(scratch: &Scratch) -> Option<String> {
    let output = Command::new(scratch.0.join("program"))
        .args(["in-sandbox", "writes_and_creates_where_it_may"])
        .current_dir(&scratch.0)
        .env("SANDBOX_USER", "12345")
        .output()
        .expect("this program");
    use std::os::unix::fs::MetadataExt;
    let files = fs::read_dir(scratch.0.join("write")).expect("a directory");
    let owners = files.filter_map(|file| Some(file.ok()?.metadata().ok()?.uid()));
    let found = owners.into_iter().any(|owner| owner == 12345);
    (!found || !output.status.success()).then(|| format!("another user: {output:?}"))
}
