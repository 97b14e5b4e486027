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

use baton_config::{Control, MetricsTarget};
use baton_os::directory::Directory;
use baton_os::listener::{Access, remove_stale};
use rustix::process::geteuid;
use thiserror::Error;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::http::{Listener, Page, Waiter};
use snapshot::Snapshot;

mod places;
pub mod snapshot;

pub use places::directories;

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
    /// There is none, or it cannot be opened, or nobody can listen there.
    #[error("{} cannot be used: {source}", path.display())]
    Host {
        /// The directory, or the socket in it.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
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

/// The sockets in [`directories`] at which a process listens, with its id; one of each process.
#[must_use]
pub fn instances() -> Vec<(u32, PathBuf)> {
    let mut found: Vec<_> = directories()
        .iter()
        .flat_map(|path| instances_in(path))
        .collect();
    // The order of the places stays among those of a process.
    found.sort_by_key(|(pid, _)| *pid);
    found.dedup_by_key(|(pid, _)| *pid);
    found
}

/// The sockets in the directory `path` at which a process listens, with its id.
fn instances_in(path: &Path) -> Vec<(u32, PathBuf)> {
    let Ok(directory) = open_own(path) else {
        return Vec::new();
    };
    let names = directory.names().unwrap_or_default();
    names
        .into_iter()
        .filter_map(|name| {
            let pid = owner(Path::new(&name))?;
            // Its number says little: a process of that number may be another program by now.
            directory.is_listened_at(&name).ok()?.then_some(())?;
            Some((pid, path.join(name)))
        })
        .collect()
}

/// The process that a socket in one of [`directories`] is named after.
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

/// Removes sockets that killed runs have left. A process that is not seen here may live in another
/// container; then somebody listens.
fn sweep(directory: &Directory) {
    for name in directory.names().into_iter().flatten() {
        if owner(Path::new(&name)).is_some_and(|pid| !lives(pid)) {
            // Another run may have been faster.
            if let Ok(_lock) = directory.lock(&name) {
                let _ = remove_stale(directory, &name);
            }
        }
    }
}

/// Where the snapshots come from.
pub trait Source: Send + 'static {
    /// Copies what there is. The pool's lock is held for that, and for nothing else.
    fn look(&self) -> Snapshot;
}

/// A socket on offer.
#[derive(Debug)]
pub struct Offer {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Offer {
    /// Answers at `control` with what `source` shows. `None` if none is wanted, or the default
    /// place cannot be used, which is said on standard error.
    pub fn start(control: &Control, source: impl Source) -> Result<Option<Self>, ControlError> {
        let (path, offer) = match control {
            Control::Off => return Ok(None),
            Control::Path(path) => (path.clone(), Self::listen(path, source)),
            Control::Default => {
                let offer = first_place(&directories()).and_then(|path| {
                    Self::listen(&path, source)
                        .map_err(|source| RuntimeError::Host { path, source })
                });
                return Ok(offer.inspect_err(say_there_is_none).ok());
            }
        };
        offer
            .map(Some)
            .map_err(|source| ControlError { path, source })
    }

    fn listen(path: &Path, source: impl Source) -> io::Result<Self> {
        let listener = Listener::bind(&MetricsTarget::Unix(path.to_owned()), Access::OwnerOnly)?;
        let stop = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        let waiter = Waiter::new(Arc::clone(&stop), Some(&listener))?;
        let thread = thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                while !waiter.stopped(None) {
                    listener.answer(|asked| {
                        (asked.path == "/snapshot").then(|| Page {
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

fn say_there_is_none(error: &RuntimeError) {
    baton_os::say!(
        "baton: this run has no control socket, for {error}; name one with --control, or say --control off"
    );
}

/// The place of this process in the first of `directories` that can be used; why the first cannot if
/// none can.
fn first_place(directories: &[PathBuf]) -> Result<PathBuf, RuntimeError> {
    let mut places = directories.iter().map(|directory| default_place(directory));
    let first = places.next().unwrap_or_else(|| {
        Err(RuntimeError::Host {
            path: PathBuf::from("the runtime directory"),
            source: io::ErrorKind::NotFound.into(),
        })
    });
    first.or_else(|error| places.find_map(Result::ok).ok_or(error))
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
    use std::os::unix::net::UnixListener;

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
        drop(UnixListener::bind(&gone).expect("a socket"));
        (directory, gone)
    }

    #[test]
    fn only_sockets_that_killed_runs_have_left_are_swept() {
        let (directory, gone) = place("sweep");
        let in_directory = |name: &str| directory.join(name);
        let left = |name: &str| {
            let path = in_directory(name);
            drop(UnixListener::bind(&path).expect("a socket"));
            path
        };
        let ours = left(&format!("{}.sock", std::process::id()));
        let other = left("notes.sock");
        // No process of these numbers is seen; one is in another container, the other no socket.
        let elsewhere = in_directory("4194306.sock");
        let _listener = UnixListener::bind(&elsewhere).expect("listens");
        let notes = in_directory("4194307.sock");
        fs::write(&notes, "notes").expect("a file");
        assert_eq!(default_place(&directory).expect("ours"), ours);
        assert!(!gone.exists(), "swept");
        assert!(
            [ours, other, elsewhere, notes]
                .iter()
                .all(|path| path.exists())
        );
        assert_eq!(fs::read_dir(&directory).expect("reads").count(), 4);
        fs::remove_dir_all(&directory).expect("removed");
    }

    #[test]
    fn a_run_takes_the_next_place_where_the_first_cannot_be_used_and_is_found_there() {
        let (first, _) = place("first");
        let (second, _) = place("second");
        fs::set_permissions(&first, Permissions::from_mode(0o777)).expect("mode");
        let ours = first_place(&[first.clone(), second.clone()]).expect("the second");
        assert_eq!(ours.parent(), Some(&*second));
        let _listener = UnixListener::bind(&ours).expect("listens");
        assert_eq!(instances_in(&second), [(std::process::id(), ours)]);
        assert_eq!(instances_in(&first), []);
        let error = first_place(std::slice::from_ref(&first))
            .expect_err("refused")
            .to_string();
        assert!(error.contains("(mode 777)"), "{error}");
        for directory in [first, second] {
            fs::remove_dir_all(directory).expect("removed");
        }
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
