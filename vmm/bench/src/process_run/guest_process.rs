//! A guest's process, and the summary that it prints.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use baton_config::{GuestConfig, RunConfig};
use baton_run::summary::{GuestSummary, RunSummary};

use super::child::OwnChild;
use super::error::ProcessRunError;
use super::files;
use super::log_tail::tail;
use crate::scratch_dir::ScratchDir;

/// A guest, which is ended when this is dropped.
#[derive(Debug)]
pub(super) struct GuestProcess {
    process: OwnChild,
    name: String,
    summary: PathBuf,
    log: PathBuf,
}

impl GuestProcess {
    /// Starts `guest` of `config`, which joins the pool in the directory `pool`.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub(super) fn start(
        config: &RunConfig,
        guest: &GuestConfig,
        pool: &Path,
        scratch: &ScratchDir,
    ) -> Result<Self, ProcessRunError> {
        let cannot = ProcessRunError::host;
        let text = files::guest(config, guest).map_err(io::Error::other);
        let text = text.map_err(cannot("describe a guest"))?;
        let name = &guest.name;
        let file = scratch.write(format!("{name}.toml"), text.as_bytes())?;
        let [summary, log] = ["json", "log"].map(|end| scratch.join(format!("{name}.{end}")));
        let output = |path: &Path| File::create(path).map_err(cannot("create a file for output"));
        let program = std::env::current_exe().map_err(cannot("find its own program"))?;
        let mut command = Command::new(program);
        command.arg("vm").arg("--pool").arg(pool);
        command.args(["--summary", "json"]).arg(file);
        command.stdin(Stdio::null());
        command.stdout(output(&summary)?).stderr(output(&log)?);
        let process = OwnChild::spawn(&mut command).map_err(cannot("start baton vm"))?;
        Ok(Self {
            process,
            name: name.clone(),
            summary,
            log,
        })
    }

    /// Becomes readable when its process ends.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    /// Whether its process has ended.
    ///
    /// # Errors
    /// If the host refuses to show that.
    pub(super) fn has_ended(&mut self) -> Result<bool, ProcessRunError> {
        let status = self.process.status();
        let status = status.map_err(ProcessRunError::host("wait for a guest"))?;
        Ok(status.is_some())
    }

    /// The guest in the summary of its process, which has ended.
    ///
    /// # Errors
    /// If the process has printed no summary.
    pub(super) fn summary(&mut self) -> Result<GuestSummary, ProcessRunError> {
        let text = fs::read(&self.summary).unwrap_or_default();
        let run: Option<RunSummary> = serde_json::from_slice(&text).ok();
        if let Some(guest) = run.and_then(|run| run.guests.into_iter().next()) {
            return Ok(guest);
        }
        let status = self.process.status().ok().flatten();
        Err(ProcessRunError::Guest {
            guest: self.name.clone(),
            status: status.map_or_else(String::new, |status| status.to_string()),
            log: tail(&self.log),
        })
    }
}
