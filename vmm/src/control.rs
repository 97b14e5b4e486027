//! The control socket of a run: what it looks like now, for `baton top` and for scripts.
//!
//! HTTP over a unix socket, so `curl --unix-socket PATH http://baton/snapshot` works too; the answer
//! is [`snapshot::Snapshot`] as JSON (`docs/control.md`).

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use thiserror::Error;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::metrics::Target;
use crate::metrics::serve::{Listener, Page, Waiter};
use snapshot::Snapshot;

pub mod snapshot;

/// The control socket could not be offered.
#[derive(Debug, Error)]
#[error("cannot offer the control socket {}: {source}; name another with --control, or say --control off", path.display())]
pub struct ControlError {
    /// The socket.
    path: PathBuf,
    /// Why not.
    source: io::Error,
}

/// Where a run offers its control socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Control {
    /// Nowhere.
    #[default]
    Off,
    /// In the user's runtime directory, named after the process; that it cannot is no error.
    Default,
    /// At this path.
    Path(PathBuf),
}

impl std::str::FromStr for Control {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "off" => Self::Off,
            path => Self::Path(path.into()),
        })
    }
}

/// The directory of the sockets that are not named by the user.
#[must_use]
pub fn directory() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(base) if !base.is_empty() => Path::new(&base).join("baton"),
        _ => PathBuf::from("/run/baton"),
    }
}

/// The sockets in [`directory`] whose process lives, with its id.
#[must_use]
pub fn instances() -> Vec<(u32, PathBuf)> {
    let Ok(entries) = fs::read_dir(directory()) else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            let pid = owner(&path).filter(|pid| lives(*pid))?;
            Some((pid, path))
        })
        .collect();
    found.sort();
    found
}

/// The process that a socket in [`directory`] is named after.
fn owner(path: &Path) -> Option<u32> {
    let is_socket = path.extension()? == "sock";
    path.file_stem()?
        .to_str()?
        .parse()
        .ok()
        .filter(|_| is_socket)
}

fn lives(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// Removes sockets that killed runs have left.
fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if owner(&entry.path()).is_some_and(|pid| !lives(pid)) {
            // Another run may have been faster.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Where the snapshots come from.
pub(crate) trait Source: Send + 'static {
    /// Copies what there is. The pool's lock is held for that, and for nothing else.
    fn look(&self) -> Snapshot;
}

/// A socket on offer.
#[derive(Debug)]
pub(crate) struct Offer {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Offer {
    /// Answers at `control` with what `source` shows. `None` if none is wanted, or the default
    /// place cannot be used.
    pub(crate) fn start(
        control: &Control,
        source: impl Source,
    ) -> Result<Option<Self>, ControlError> {
        let path = match control {
            Control::Off => return Ok(None),
            Control::Path(path) => path.clone(),
            Control::Default => {
                let directory = directory();
                // Others of this user may have made it.
                let _ = DirBuilder::new().mode(0o700).create(&directory);
                sweep(&directory);
                directory.join(format!("{}.sock", std::process::id()))
            }
        };
        match Self::listen(&path, source) {
            Ok(offer) => Ok(Some(offer)),
            Err(_) if *control == Control::Default => Ok(None),
            Err(source) => Err(ControlError { path, source }),
        }
    }

    fn listen(path: &Path, source: impl Source) -> io::Result<Self> {
        let listener = Listener::bind(&Target::Unix(path.to_owned()))?;
        // For this user alone, whatever the umask.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        let stop = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        let waiter = Waiter::new(Arc::clone(&stop), Some(&listener))?;
        let thread = thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                while !waiter.stopped(None) {
                    listener.answer(|path| {
                        (path == "/snapshot").then(|| Page {
                            kind: "application/json",
                            // Plain data always has a JSON form.
                            text: serde_json::to_string(&source.look()).unwrap_or_default() + "\n",
                        })
                    });
                }
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        // Only a counter at its maximum refuses a write, and one write cannot take it there.
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by then.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_of_processes_that_are_gone_are_swept() {
        let directory = std::env::temp_dir().join(format!("baton-sweep-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("directory");
        // Process ids end at 2^22.
        let gone = directory.join("4194305.sock");
        let ours = directory.join(format!("{}.sock", std::process::id()));
        let other = directory.join("notes.sock");
        for path in [&gone, &ours, &other] {
            fs::write(path, "").expect("file");
        }
        sweep(&directory);
        assert!(!gone.exists() && ours.exists() && other.exists());
        fs::remove_dir_all(&directory).expect("removed");
    }
}
