//! A pool on one host CPU and the guests in it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use baton_api::{Guest, GuestState};
use baton_service::client::Client;
use serde_json::Value;

use crate::common::place::Place;
use crate::common::{Ran, Running};

/// Seconds after which a process is killed, also one of the long form.
const LONGEST: i64 = 7200;
/// How long the pool and its guests may take for anything that a test waits for. Only a fault takes so long.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two looks.
pub const EVERY: Duration = Duration::from_millis(5);

/// The number in the environment variable `name`, or `default`.
pub fn number_of(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number")),
        Err(_) => default,
    }
}

/// A pool on the first host CPU, which a test may kill and start again.
pub struct ServicePool {
    place: Place,
    process: Option<Running>,
    /// The pools of these tests share a CPU, so one runs at a time.
    _alone: MutexGuard<'static, ()>,
}

/// The process of a guest, whose output goes to files.
pub struct GuestProcess {
    pub name: String,
    pub process: Running,
    output: [String; 2],
}

impl ServicePool {
    /// A pool of the test `test`, which runs.
    pub fn start(test: &str) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pool = Self {
            place: Place::new(test),
            process: None,
            _alone: alone,
        };
        pool.start_again();
        pool
    }

    /// Starts the pool, which does not run.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "the pool runs");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.place.path("pool.log"));
        let log = log.expect("a log");
        let spawn = |command: &mut Command| {
            command.stdout(log.try_clone().expect("a file")).stderr(log);
            Running::spawn_for(command, LONGEST)
        };
        // Other tests use the CPU, too.
        self.process = Some(self.place.start_as(&["--share-cpus"], spawn));
    }

    /// Kills the pool's process.
    pub fn kill(&mut self) {
        drop(self.process.take().expect("the pool runs"));
    }

    /// Ends the pool as a service manager does.
    pub fn terminate(&mut self) {
        let process = self.process.take().expect("the pool runs");
        process.signal(libc::SIGTERM);
        let ran = process.finish();
        assert_eq!(ran.code, 0, "{}", self.log());
    }

    /// The pool's process.
    pub fn pid(&self) -> i32 {
        self.process.as_ref().expect("the pool runs").pid()
    }

    /// Sends `signal` to the pool's process.
    pub fn signal(&self, signal: i32) {
        self.process.as_ref().expect("the pool runs").signal(signal);
    }

    /// The directory of the test, and the pool in it.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// What the pool has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.place.path("pool.log")).unwrap_or_default()
    }

    /// A client of the pool, which runs.
    pub fn client(&self) -> Client {
        Client::new(Some(Path::new(&self.place.pool()))).expect("the pool listens")
    }

    /// All guests, ordered by their names.
    pub fn guests(&self) -> Vec<Guest> {
        let mut guests = self.client().guests().expect("a list").guests;
        guests.sort_by(|a, b| a.name.cmp(&b.name));
        guests
    }

    /// The names of all guests that have not ended, in order.
    pub fn names(&self) -> Vec<String> {
        let guests = self.guests().into_iter();
        let alive = guests.filter(|guest| guest.state != GuestState::Ended);
        alive.map(|guest| guest.name).collect()
    }

    /// What `look` returns as soon as it returns something.
    pub fn until<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(seen) = look(self) {
                return seen;
            }
            assert!(
                Instant::now() < end,
                "in {PATIENCE:?}, this has not come about: {what}; guests: {:?}; the log of the pool:\n{}",
                self.guests(),
                self.log()
            );
            thread::sleep(EVERY);
        }
    }

    /// Waits until the pool has these guests and no other.
    pub fn until_listed(&self, names: &[&str]) {
        let what = format!("the guests are {names:?}");
        self.until(&what, |pool| (pool.names() == names).then_some(()));
    }

    /// Starts the process of a guest, which is to join.
    pub fn vm(&self, name: &str, words: &[&str]) -> GuestProcess {
        let output = ["out", "err"].map(|end| {
            let path = self.place.path(&format!("{name}.{end}"));
            path.to_string_lossy().into_owned()
        });
        let file = |path: &String| {
            let mut options = OpenOptions::new();
            options.create(true).write(true).truncate(true);
            options.open(path).expect("a file")
        };
        let first = ["vm", "--name", name, "--summary", "json"];
        let mut command = self.place.command(&[&first[..], words].concat());
        command.stdout(file(&output[0])).stderr(file(&output[1]));
        GuestProcess {
            name: name.to_owned(),
            process: Running::spawn_for(&mut command, LONGEST),
            output,
        }
    }

    /// Waits until the pool has had the guest, which may have come to its end.
    pub fn until_joined(&self, guest: &mut GuestProcess) {
        self.until("the guest has joined", |pool| {
            let joined = pool.names().contains(&guest.name);
            (joined || guest.has_ended()).then_some(())
        });
    }

    /// The state of the scheduler.
    pub fn snapshot(&self) -> Value {
        let body = self.get("/snapshot");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    /// The metrics.
    pub fn metrics(&self) -> String {
        self.get("/metrics")
    }

    fn get(&self, path: &str) -> String {
        let socket = Path::new(&self.place.pool()).join("api.sock");
        let mut stream = UnixStream::connect(socket).expect("the pool listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: baton\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
    }
}

impl Drop for ServicePool {
    fn drop(&mut self) {
        if thread::panicking() {
            // Without it, what the pool has done to a guest cannot be found out: the file goes with the directory.
            println!("the log of the pool:\n{}", self.log());
        }
    }
}

impl GuestProcess {
    /// Waits for the end of the process, and returns its output.
    pub fn finish(self) -> Ran {
        let ran = self.process.finish();
        let [stdout, stderr] = self
            .output
            .map(|path| fs::read_to_string(path).expect("text"));
        Ran {
            stdout,
            stderr,
            ..ran
        }
    }

    /// Waits until the process has printed `text` on standard error. The pool may be stopped.
    pub fn until_said(&mut self, pool: &ServicePool, text: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let said = fs::read_to_string(&self.output[1]).unwrap_or_default();
            if said.contains(text) {
                return;
            }
            assert!(!self.has_ended(), "the guest has ended: {said}");
            let log = pool.log();
            assert!(Instant::now() < end, "no '{text}' in: {said}\n{log}");
            thread::sleep(EVERY);
        }
    }

    /// Forgets what the process has printed on standard error so far.
    pub fn forget_said(&self) {
        let file = File::options().write(true).open(&self.output[1]);
        file.and_then(|file| file.set_len(0)).expect("a file");
    }

    /// Has the pool power the guest off, and waits for the end, which is a good one.
    pub fn power_off(self, pool: &ServicePool) {
        let order = pool.client().order(&self.name, "power-off");
        order.expect("the order is given");
        self.finish_well();
    }

    /// Waits for the end of the guest, which has joined, and has left it as it should.
    pub fn finish_well(self) {
        let ran = self.finish();
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(!ran.stderr.contains("has not let go"), "{ran:?}");
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.process.try_wait().expect("a child").is_some()
    }
}
