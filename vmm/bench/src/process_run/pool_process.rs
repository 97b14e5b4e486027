//! The pool's process. It reports that it is ready as it does to systemd.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use baton_config::RunConfig;
use baton_os::event::wait_readable;
use baton_os::signals::StopSignals;

use super::child::OwnChild;
use super::error::ProcessRunError;
use super::files;
use super::log_tail::tail;
use crate::scratch_dir::ScratchDir;

/// How long a pool may take until guests can join.
const PATIENCE: Duration = Duration::from_secs(30);
/// What it reports then.
const READY: &[u8] = b"READY=1";

/// A pool that runs until this is dropped.
#[derive(Debug)]
pub(super) struct PoolProcess {
    process: OwnChild,
    directory: PathBuf,
    log: PathBuf,
}

impl PoolProcess {
    /// Starts the pool of `config`, and waits until guests can join. `None`: a signal has ended the wait.
    ///
    /// # Errors
    /// If it does not become ready.
    pub(super) fn start(
        config: &RunConfig,
        scratch: &ScratchDir,
        signals: Option<&StopSignals>,
    ) -> Result<Option<Self>, ProcessRunError> {
        let cannot = ProcessRunError::host;
        let text = files::pool(config).map_err(io::Error::other);
        let text = text.map_err(cannot("describe the pool"))?;
        let file = scratch.write("pool.toml", text.as_bytes())?;
        let (directory, log) = (scratch.join("pool"), scratch.join("pool.log"));
        let address = scratch.join("notify");
        let reports = UnixDatagram::bind(&address).map_err(cannot("listen for the pool"))?;
        let stderr = File::create(&log).map_err(cannot("create a log"))?;
        let program = std::env::current_exe().map_err(cannot("find its own program"))?;
        let mut command = Command::new(program);
        command.arg("pool").arg("--config").arg(file);
        command.arg("--dir").arg(&directory);
        command.env("NOTIFY_SOCKET", &address);
        command.stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(stderr);
        let process = OwnChild::spawn(&mut command).map_err(cannot("start baton pool"))?;
        let mut pool = Self {
            process,
            directory,
            log,
        };
        let is_ready = pool.wait_until_ready(&reports, signals)?;
        Ok(is_ready.then_some(pool))
    }

    /// False: a signal has ended the wait.
    fn wait_until_ready(
        &mut self,
        reports: &UnixDatagram,
        signals: Option<&StopSignals>,
    ) -> Result<bool, ProcessRunError> {
        let cannot = || ProcessRunError::host("wait for the pool");
        reports.set_nonblocking(true).map_err(cannot())?;
        let end = Instant::now() + PATIENCE;
        loop {
            let mut report = [0; 256];
            match reports.recv(&mut report) {
                Ok(length) if report[..length].starts_with(READY) => return Ok(true),
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(cannot()(error)),
            }
            if signals.is_some_and(StopSignals::take) {
                return Ok(false);
            }
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.failed("has not become ready"));
            }
            let mut files = vec![reports.as_fd(), self.file()];
            files.extend(signals.map(AsFd::as_fd));
            wait_readable(&files, Some(left)).map_err(cannot())?;
        }
    }

    /// The directory in which it listens.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Becomes readable when its process ends.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    /// Checks that it runs.
    ///
    /// # Errors
    /// If it has ended.
    pub(super) fn check(&mut self) -> Result<(), ProcessRunError> {
        let status = self.process.status();
        match status.map_err(ProcessRunError::host("wait for the pool"))? {
            Some(_) => Err(self.failed("has ended")),
            None => Ok(()),
        }
    }

    fn failed(&self, what: &'static str) -> ProcessRunError {
        let log = tail(&self.log);
        ProcessRunError::Pool { what, log }
    }
}
