//! The process at the other end of the control socket, and its threads, as the kernel knows them.
//!
//! Ids of processes and threads are reused. So the process is held by a pidfd and by its directory below
//! `/proc`, which both belong to the process and not to its number. A thread's files are opened below that
//! directory, so they are files of a thread of this process, whatever ids its messages name.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt;
use rustix::process::{self, Pid, PidfdFlags, Signal};
use vcpu_sched::Ns;

use crate::foreign_clock::ForeignThreadClock;
use crate::foreign_error::ForeignError;
use crate::kick_signal::KickSignal;

/// Who is at the other end of a control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The process that connected.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// Another process.
#[derive(Debug)]
pub struct ForeignProcess {
    credentials: Credentials,
    pidfd: OwnedFd,
    /// `/proc/PID/task`.
    tasks: OwnedFd,
}

/// A thread of another process.
#[derive(Debug)]
pub struct ForeignThread {
    /// Its CPU time.
    pub clock: ForeignThreadClock,
    /// The way to kick it.
    pub kick: KickSignal,
}

/// What a thread of another process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadState {
    /// It runs, or would run if it had a CPU.
    Ready,
    /// It waits for something.
    Waits,
    /// It ends, also where the kernel is not done with that, or there is no such thread.
    Ends,
}

impl ThreadState {
    /// That of the thread whose `stat` begins with `text`, as proc_pid_stat(5) has it.
    fn of_stat(text: &[u8]) -> Self {
        /// `PF_EXITING` of the kernel's flags: whatever the thread does, it does on its way to its end.
        const EXITING: u64 = 4;
        // The name is in brackets, and can have brackets, too.
        let name_end = text.iter().rposition(|&byte| byte == b')');
        let rest = name_end.and_then(|end| std::str::from_utf8(&text[end + 1..]).ok());
        let mut fields = rest.unwrap_or_default().split_ascii_whitespace();
        let state = fields.next();
        let flags = fields.nth(5).and_then(|flags| flags.parse::<u64>().ok());
        match (state, flags) {
            (None | Some("Z" | "X" | "x"), _) => Self::Ends,
            (_, Some(flags)) if flags & EXITING != 0 => Self::Ends,
            (Some("R"), _) => Self::Ready,
            _ => Self::Waits,
        }
    }
}

impl ForeignProcess {
    /// The process that connected to this Unix `socket`.
    ///
    /// # Errors
    /// If it has ended, or the host refuses to show it.
    pub fn of_peer(socket: impl AsFd) -> Result<Self, ForeignError> {
        let peer = sockopt::socket_peercred(&socket).map_err(|_| ForeignError::Ended)?;
        let credentials = Credentials {
            pid: peer.pid.as_raw_pid(),
            uid: peer.uid.as_raw(),
            gid: peer.gid.as_raw(),
        };
        match pidfd_of_peer(&socket) {
            Ok(pidfd) => Self::open(credentials, pidfd),
            // Before Linux 6.5. If the process has ended since, and its id was reused, this is another process.
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
                Self::of_pid(credentials, peer.pid)
            }
            Err(_) => Err(ForeignError::Ended),
        }
    }

    fn of_pid(credentials: Credentials, pid: Pid) -> Result<Self, ForeignError> {
        let pidfd = process::pidfd_open(pid, PidfdFlags::empty());
        let pidfd = pidfd.map_err(|error| Self::refused(credentials, error))?;
        Self::open(credentials, pidfd)
    }

    fn refused(credentials: Credentials, error: rustix::io::Errno) -> ForeignError {
        match error {
            rustix::io::Errno::SRCH | rustix::io::Errno::NOENT => ForeignError::Ended,
            error => ForeignError::Host {
                pid: credentials.pid,
                error: error.into(),
            },
        }
    }

    fn open(credentials: Credentials, pidfd: OwnedFd) -> Result<Self, ForeignError> {
        let path = format!("/proc/{}/task", credentials.pid);
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let tasks = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| Self::refused(credentials, error))?;
        let process = Self {
            credentials,
            pidfd,
            tasks,
        };
        // The directory is that of the pidfd's process only if that process has the id still.
        match process.has_ended() {
            true => Err(ForeignError::Ended),
            false => Ok(process),
        }
    }

    /// Who it is.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        self.credentials
    }

    /// Becomes readable when the process ends.
    #[must_use]
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Whether the process has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let mut polled = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = rustix::time::Timespec::try_from(Duration::ZERO).ok();
        // A poll that fails cannot show that it lives.
        rustix::event::poll(&mut polled, now.as_ref()) != Ok(0)
    }

    /// Stops all of its threads, wherever they are. Without effect if it has ended, or the kernel does not permit
    /// it.
    pub fn stop(&self) {
        // The control socket shows the end of a process that cannot be stopped.
        let _ = process::pidfd_send_signal(&self.pidfd, Signal::STOP);
    }

    /// Ends it, whatever it does. Without effect if it has ended, or the kernel does not permit it.
    pub fn kill(&self) {
        // As above.
        let _ = process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// CPU time of all of its threads so far, also of those that have ended, ns. `None`: the process has ended.
    #[must_use]
    pub fn cpu_ns(&self) -> Option<Ns> {
        // `CPUCLOCK_SCHED` of a process, as clock_getcpuclockid(3) has it.
        let clock = (!self.credentials.pid << 3) | 2;
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the kernel fills in the time.
        let read = unsafe { libc::clock_gettime(clock, &raw mut time) };
        // If the process lives, the clock was that of this process and not of another one with its id.
        (read == 0 && !self.has_ended())
            .then(|| time.tv_sec as Ns * 1_000_000_000 + time.tv_nsec as Ns)
    }

    /// Whether its thread `tid` runs, or would run if it had a CPU. False also if there is no such thread.
    #[must_use]
    pub fn is_ready(&self, tid: i32) -> bool {
        self.thread_state(tid) == ThreadState::Ready
    }

    /// What its thread `tid` does.
    #[must_use]
    pub fn thread_state(&self, tid: i32) -> ThreadState {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let path = format!("{tid}/stat");
        let Ok(file) = rustix::fs::openat(&self.tasks, path, flags, Mode::empty()) else {
            return ThreadState::Ends;
        };
        let mut line = [0; 256];
        match rustix::io::read(&file, &mut line) {
            Ok(length) => ThreadState::of_stat(&line[..length]),
            Err(_) => ThreadState::Ends,
        }
    }

    /// Its thread `tid`, which `signo` is to kick.
    ///
    /// # Errors
    /// If it has no such thread, or `signo` is no real-time signal.
    pub fn thread(&self, tid: i32, signo: i32) -> Result<ForeignThread, ForeignError> {
        let pid = self.credentials.pid;
        let missing = ForeignError::NoThread { pid, tid };
        if tid <= 0 {
            return Err(missing);
        }
        let path = format!("{tid}/schedstat");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let Ok(file) = rustix::fs::openat(&self.tasks, path, flags, Mode::empty()) else {
            return Err(missing);
        };
        let clock = ForeignThreadClock::new(File::from(file));
        let kick = KickSignal::new(&self.pidfd, pid, tid, signo)?;
        // If the thread still runs, its id was not reused when the kick's file was opened.
        match clock.ran_ns() {
            Ok(_) => Ok(ForeignThread { clock, kick }),
            Err(_) => Err(missing),
        }
    }
}

/// The process that connected to this `socket`, whatever has its id by now.
fn pidfd_of_peer(socket: &impl AsFd) -> io::Result<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let mut bytes = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes one number, for which there is room.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut bytes,
        )
    };
    match result {
        // SAFETY: the kernel has just returned this file, which nothing else owns.
        0 if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::{Command, Stdio};

    use baton_os::signals::RtSignal;
    use baton_os::sys;

    use super::*;

    fn signo() -> i32 {
        RtSignal::ExecutorKick.number()
    }

    fn this_process() -> ForeignProcess {
        let (socket, _other) = UnixStream::pair().expect("sockets");
        ForeignProcess::of_peer(&socket).expect("this process")
    }

    #[test]
    fn the_peer_of_a_socket_is_known_by_process_and_user() {
        let own = Credentials {
            pid: std::process::id() as i32,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
        };
        assert_eq!(this_process().credentials(), own);
        assert!(!this_process().has_ended());
    }

    /// The pool's end of a connection of a process that has ended since, and the id of that process.
    fn of_process_that_has_ended() -> (UnixStream, i32) {
        let path = std::env::temp_dir().join(format!("baton-peer-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("a socket");
        let address = rustix::net::SocketAddrUnix::new(&path).expect("a path");
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            None,
        )
        .expect("a socket");
        // SAFETY: the child makes system calls only, and allocates nothing.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let connected = rustix::net::connect(&socket, &address).is_ok();
            // SAFETY: no memory is involved.
            unsafe { libc::_exit(i32::from(!connected)) };
        }
        assert!(pid > 0);
        let (stream, _) = listener.accept().expect("a connection");
        // SAFETY: the kernel need not return the status.
        assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, pid);
        std::fs::remove_file(&path).expect("removed");
        (stream, pid)
    }

    #[test]
    fn a_process_that_has_the_id_of_the_one_that_connected_is_not_taken_for_it() {
        let (stream, pid) = of_process_that_has_ended();
        for _ in 0..1_000 {
            let last = format!("{}", pid - 1);
            if std::fs::write("/proc/sys/kernel/ns_last_pid", last).is_err() {
                eprintln!("this user may not choose the ids of processes, so nothing is tested");
                return;
            }
            let mut child = Command::new("sleep").arg("60").spawn().expect("a process");
            let has_id = child.id() as i32 == pid;
            let refused = has_id.then(|| ForeignProcess::of_peer(&stream));
            child.kill().expect("it runs");
            child.wait().expect("ended");
            if let Some(refused) = refused {
                assert!(matches!(refused, Err(ForeignError::Ended)), "{refused:?}");
                return;
            }
        }
    }

    #[test]
    fn threads_of_other_processes_are_refused() {
        let process = this_process();
        assert!(process.thread(sys::thread_id(), signo()).is_ok());
        for tid in [1, 2, 0, -1, i32::MAX, i32::MIN] {
            let refused = process.thread(tid, signo());
            assert!(
                matches!(refused, Err(ForeignError::NoThread { .. })),
                "{tid}"
            );
        }
    }

    #[test]
    fn a_thread_is_ready_unless_it_sleeps_or_has_ended() {
        let process = this_process();
        assert!(process.is_ready(sys::thread_id()));
        let (send_id, id) = std::sync::mpsc::channel();
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name(") R (".into());
        let sleeps = move || {
            send_id.send(sys::thread_id()).expect("received");
            let _ = wait.recv();
        };
        let thread = thread.spawn(sleeps).expect("a thread");
        let id = id.recv().expect("an id");
        while process.is_ready(id) {
            std::thread::yield_now();
        }
        drop(end);
        thread.join().expect("it ends");
        for none in [0, -1, i32::MAX] {
            assert!(!process.is_ready(none));
        }
    }

    #[test]
    fn a_thread_that_the_kernel_is_about_to_end_ends_whatever_it_waits_for() {
        let of = |state: &str, flags: u32| {
            let text = format!("7 (a) Z (b) {state} 1 7 7 0 -1 {flags} 52 0");
            ThreadState::of_stat(text.as_bytes())
        };
        assert_eq!(of("R", 0x40_0040), ThreadState::Ready);
        assert_eq!(of("S", 0x40_0040), ThreadState::Waits);
        for (state, flags) in [("R", 0x40_0044), ("D", 4), ("Z", 0), ("X", 0)] {
            assert_eq!(of(state, flags), ThreadState::Ends);
        }
        assert_eq!(ThreadState::of_stat(b""), ThreadState::Ends);
        let process = this_process();
        assert_eq!(process.thread_state(sys::thread_id()), ThreadState::Ready);
        assert_eq!(process.thread_state(i32::MAX), ThreadState::Ends);
    }

    #[test]
    fn only_real_time_signals_can_be_kicks() {
        let process = this_process();
        for signo in [0, libc::SIGKILL, libc::SIGSTOP, libc::SIGTERM, 33, 65, -1] {
            let refused = process.thread(sys::thread_id(), signo);
            assert!(matches!(refused, Err(ForeignError::Signal(n)) if n == signo));
        }
    }

    #[test]
    fn a_process_has_the_cpu_time_of_its_threads_and_none_when_it_has_ended() {
        let process = this_process();
        let own = || sys::process_cpu_ns();
        let (before, read, after) = (own(), process.cpu_ns().expect("it runs"), own());
        assert!((before..=after).contains(&read), "{before} {read} {after}");

        let mut child = Command::new("sleep").arg("60").spawn().expect("a process");
        let credentials = Credentials {
            pid: child.id() as i32,
            ..process.credentials()
        };
        let process =
            ForeignProcess::of_pid(credentials, Pid::from_child(&child)).expect("it runs");
        assert!(process.cpu_ns().is_some());
        process.stop();
        process.kill();
        assert!(!child.wait().expect("ended").success());
        assert_eq!(process.cpu_ns(), None);
    }

    #[test]
    fn a_process_that_has_ended_is_noticed_and_its_threads_are_gone() {
        let mut cat = Command::new("cat");
        let mut child = cat.stdin(Stdio::piped()).spawn().expect("a process");
        let pid = child.id() as i32;
        let credentials = Credentials {
            pid,
            ..this_process().credentials()
        };
        let id = Pid::from_child(&child);
        let process = ForeignProcess::of_pid(credentials, id).expect("it runs");
        let thread = process.thread(pid, signo()).expect("its first thread");
        assert!(!process.has_ended() && thread.clock.ran_ns().is_ok());
        drop(child.stdin.take());
        child.wait().expect("it ended");
        assert!(process.has_ended());
        assert!(thread.clock.ran_ns().is_err());
        assert!(!thread.kick.send());
        let refused = ForeignProcess::of_pid(credentials, id);
        assert!(matches!(refused, Err(ForeignError::Ended)));
    }
}
