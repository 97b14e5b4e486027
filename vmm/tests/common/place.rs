//! A pool of a test, in a directory of the test.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;

use baton_os::cpu_owner::VARIABLE;

use super::{Ran, Running, command, first_cpu};

/// A directory for one test.
pub struct Place(PathBuf);

impl Place {
    pub fn new(test: &str) -> Self {
        // Paths of sockets are short.
        let path = std::env::temp_dir().join(format!("baton-pool-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a directory");
        Self(path)
    }

    /// The path of `name` in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The directory of the pool.
    pub fn pool(&self) -> String {
        self.path("pool").to_string_lossy().into_owned()
    }

    /// Starts a pool on the first host CPU, and waits until it is ready.
    pub fn start(&self, flags: &[&str]) -> Running {
        self.start_as(flags, Running::spawn)
    }

    /// The same by `spawn`.
    pub fn start_as(&self, flags: &[&str], spawn: impl FnOnce(&mut Command) -> Running) -> Running {
        let notified = self.path("notify");
        let _ = fs::remove_file(&notified);
        let socket = UnixDatagram::bind(&notified).expect("a socket");
        socket.set_nonblocking(true).expect("a mode");
        let (pool, cpu) = (self.pool(), first_cpu());
        let mut arguments = vec!["pool", "--dir", &pool, "--host-cpus", &cpu];
        arguments.extend(flags);
        let mut command = command(&arguments);
        command.env(VARIABLE, self.path("cpus"));
        command.env("NOTIFY_SOCKET", &notified);
        let mut running = spawn(&mut command);
        let mut text = String::new();
        running.until("it is ready", || {
            let mut part = [0; 256];
            if let Ok(length) = socket.recv(&mut part) {
                text += &String::from_utf8_lossy(&part[..length]);
            }
            text.contains("READY=1")
        });
        running
    }

    /// Runs a command for the pool.
    pub fn run(&self, words: &[&str]) -> Ran {
        Running::spawn(&mut self.command(words)).finish()
    }

    /// A command for the pool, not yet started.
    pub fn command(&self, words: &[&str]) -> Command {
        let pool = self.pool();
        let mut arguments = words.to_vec();
        arguments.extend(["--pool", &pool]);
        let mut command = command(&arguments);
        // Logs of guests.
        command.env("XDG_RUNTIME_DIR", &self.0);
        command
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
