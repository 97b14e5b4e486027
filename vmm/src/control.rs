//! The control socket of a run: what it looks like now, for `baton top` and for scripts.
//!
//! HTTP over a unix socket, so `curl --unix-socket PATH http://baton/snapshot` works too; the answer
//! is [`snapshot::Snapshot`] as JSON (`docs/control.md`).

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::process::geteuid;
use thiserror::Error;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::directory::Directory;
use crate::listener::Access;
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

/// The runtime directory cannot be used.
#[derive(Debug, Error)]
enum RuntimeError {
    /// It is somebody else's.
    #[error("{} belongs to another user (id {owner})", path.display())]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Others may change what is in it.
    #[error("other users may write to {} (mode {mode:03o}); take that right away with chmod go-w", path.display())]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// There is none, or it cannot be opened.
    #[error("{} cannot be used: {source}", path.display())]
    Host {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Where a run offers its control socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Control {
    /// Nowhere.
    #[default]
    Off,
    /// In the user's runtime directory, named after the process. A run that cannot use it says so
    /// and goes on without.
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

/// Opens the runtime directory `path` if it is this user's alone. In another's, whoever owns it could
/// put anything in the place of a socket, or of a file that is removed there.
fn open_own(path: &Path) -> Result<Directory, RuntimeError> {
    let host = |source| RuntimeError::Host {
        path: path.to_owned(),
        source,
    };
    let directory = Directory::open_no_link(path).map_err(host)?;
    let status = directory.status().map_err(host)?;
    if status.st_uid != geteuid().as_raw() {
        return Err(RuntimeError::Owner {
            path: path.to_owned(),
            owner: status.st_uid,
        });
    }
    match status.st_mode & 0o777 {
        mode if mode & 0o022 != 0 => Err(RuntimeError::Writable {
            path: path.to_owned(),
            mode,
        }),
        _ => Ok(directory),
    }
}

/// The sockets in [`directory`] whose process lives, with its id.
#[must_use]
pub fn instances() -> Vec<(u32, PathBuf)> {
    let path = directory();
    let names = open_own(&path)
        .ok()
        .and_then(|directory| directory.names().ok());
    let mut found: Vec<_> = names
        .into_iter()
        .flatten()
        .filter_map(|name| {
            let path = path.join(name);
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
fn sweep(directory: &Directory) {
    for name in directory.names().into_iter().flatten() {
        if owner(Path::new(&name)).is_some_and(|pid| !lives(pid)) {
            // Another run may have been faster.
            let _ = directory.remove(&name);
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
    /// place cannot be used, which is said on standard error.
    pub(crate) fn start(
        control: &Control,
        source: impl Source,
    ) -> Result<Option<Self>, ControlError> {
        let (path, offer) = match control {
            Control::Off => return Ok(None),
            Control::Path(path) => (path.clone(), Self::listen(path, source)),
            Control::Default => match default_place(&directory()) {
                Ok(path) => (path.clone(), Self::listen(&path, source)),
                Err(error) => {
                    crate::say::say!(
                        "baton: this run has no control socket, for {error}; name one with \
                         --control, or say --control off"
                    );
                    return Ok(None);
                }
            },
        };
        offer
            .map(Some)
            .map_err(|source| ControlError { path, source })
    }

    fn listen(path: &Path, source: impl Source) -> io::Result<Self> {
        let listener = Listener::bind(&Target::Unix(path.to_owned()), Access::OwnerOnly)?;
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

/// The place of this process in the runtime directory, which is made if it is missing and cleaned
/// if it is there.
fn default_place(directory: &Path) -> Result<PathBuf, RuntimeError> {
    // Other runs of this user may have made it.
    let _ = DirBuilder::new().mode(0o700).create(directory);
    sweep(&open_own(directory)?);
    Ok(directory.join(format!("{}.sock", std::process::id())))
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
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A directory of a test, as its owner's alone, with the socket of a process that is gone.
    fn place(name: &str) -> (PathBuf, PathBuf) {
        let name = format!("baton-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .expect("directory");
        // Process ids end at 2^22.
        let gone = directory.join("4194305.sock");
        fs::write(&gone, "").expect("file");
        (directory, gone)
    }

    #[test]
    fn only_sockets_of_processes_that_are_gone_are_swept() {
        let (directory, gone) = place("sweep");
        let ours = directory.join(format!("{}.sock", std::process::id()));
        let other = directory.join("notes.sock");
        for path in [&ours, &other] {
            fs::write(path, "").expect("file");
        }
        assert_eq!(default_place(&directory).expect("ours"), ours);
        assert!(!gone.exists() && ours.exists() && other.exists());
        fs::remove_dir_all(&directory).expect("removed");
    }

    #[test]
    fn a_runtime_directory_that_others_may_change_is_not_used() {
        let (directory, gone) = place("shared");
        for (mode, part) in [(0o777, "(mode 777)"), (0o720, "(mode 720)")] {
            fs::set_permissions(&directory, Permissions::from_mode(mode)).expect("mode");
            let error = default_place(&directory).expect_err("refused").to_string();
            assert!(error.contains(part), "{error}");
            assert!(gone.exists(), "nothing is removed there");
        }
        fs::remove_dir_all(&directory).expect("removed");
    }

    #[test]
    fn a_runtime_directory_of_another_user_is_not_used() {
        let (directory, gone) = place("foreign");
        let link = directory.with_extension("link");
        symlink(&directory, &link).expect("a symbolic link");
        assert!(matches!(
            default_place(&link),
            Err(RuntimeError::Host { .. })
        ));
        assert!(gone.exists(), "nothing is removed there");
        fs::remove_file(link).expect("removed");
        if geteuid().is_root() {
            std::os::unix::fs::chown(&directory, Some(65_534), None).expect("another's");
            let error = default_place(&directory).expect_err("refused").to_string();
            assert!(error.contains("another user (id 65534)"), "{error}");
            assert!(gone.exists(), "nothing is removed there");
        }
        fs::remove_dir_all(&directory).expect("removed");
    }
}
