//! Directories in which runs of a user have their control sockets: which are safe to use, and how they are kept
//! clean.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use baton_os::directory::Directory;
use baton_os::listener::remove_stale;
use rustix::process::geteuid;
use thiserror::Error;

/// A runtime directory cannot be used.
#[derive(Debug, Error)]
pub(super) enum RuntimeDirError {
    /// It belongs to another user.
    #[error("{} belongs to another user (id {owner})", path.display())]
    Owner {
        /// The directory.
        path: PathBuf,
        /// The id of its owner.
        owner: u32,
    },
    /// Other users may write to it.
    #[error("other users may write to {} (mode {mode:03o}); take that right away with chmod go-w", path.display())]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It does not exist or cannot be opened, or this process cannot listen in it.
    #[error("{} cannot be used: {source}", path.display())]
    Host {
        /// The directory, or the socket in it.
        path: PathBuf,
        /// The error of the host.
        source: io::Error,
    },
}

/// The path for the socket of this process in the first of `directories` that can be used. If none can, the
/// error is that of the first.
pub(super) fn first_path(directories: &[PathBuf]) -> Result<PathBuf, RuntimeDirError> {
    let mut paths = directories.iter().map(|directory| path_in(directory));
    let first = paths.next().unwrap_or_else(|| {
        Err(RuntimeDirError::Host {
            path: PathBuf::from("the runtime directory"),
            source: io::ErrorKind::NotFound.into(),
        })
    });
    first.or_else(|error| paths.find_map(Result::ok).ok_or(error))
}

/// The path for the socket of this process in a runtime directory. The directory is created if it is missing, and
/// swept if it exists.
fn path_in(directory: &Path) -> Result<PathBuf, RuntimeDirError> {
    // Another run of this user may have created it.
    let _ = DirBuilder::new().mode(0o700).create(directory);
    sweep(&open_own(directory)?);
    Ok(directory.join(format!("{}.sock", std::process::id())))
}

/// Opens the runtime directory `path` if only this user may write to it. Otherwise another user could replace a
/// socket there, or a file that is to be removed, by anything else.
pub(super) fn open_own(path: &Path) -> Result<Directory, RuntimeDirError> {
    let host = |source| RuntimeDirError::Host {
        path: path.to_owned(),
        source,
    };
    let directory = Directory::open_no_link(path).map_err(host)?;
    let status = directory.status().map_err(host)?;
    if status.st_uid != geteuid().as_raw() {
        return Err(RuntimeDirError::Owner {
            path: path.to_owned(),
            owner: status.st_uid,
        });
    }
    match status.st_mode & 0o777 {
        mode if mode & 0o022 != 0 => Err(RuntimeDirError::Writable {
            path: path.to_owned(),
            mode,
        }),
        _ => Ok(directory),
    }
}

/// The sockets in the directory `path` that have a listener, with the ids of the processes after which they are
/// named.
pub(super) fn listening_in(path: &Path) -> Vec<(u32, PathBuf)> {
    let Ok(directory) = open_own(path) else {
        return Vec::new();
    };
    let names = directory.names().unwrap_or_default();
    names
        .into_iter()
        .filter_map(|name| {
            let pid = owner(Path::new(&name))?;
            // A process of that number proves little: it may be another program by now.
            directory.is_listened_at(&name).ok()?.then_some(())?;
            Some((pid, path.join(name)))
        })
        .collect()
}

/// The process after which a socket in a runtime directory is named.
fn owner(path: &Path) -> Option<u32> {
    let is_socket = path.extension()? == "sock";
    path.file_stem()?
        .to_str()?
        .parse()
        .ok()
        .filter(|_| is_socket)
}

/// Whether there is a process `pid`, as far as can be seen from here.
fn lives(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// Removes sockets that killed runs have left. A process that cannot be seen may live in another container; its
/// socket has a listener then, and stays.
fn sweep(directory: &Directory) {
    for name in directory.names().into_iter().flatten() {
        if owner(Path::new(&name)).is_some_and(|pid| !lives(pid)) {
            // Another run may have removed it meanwhile.
            if let Ok(_lock) = directory.lock(&name) {
                let _ = remove_stale(directory, &name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A directory to which only its owner may write, with the socket of a process that is gone.
    fn directory(name: &str) -> (PathBuf, PathBuf) {
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
        let (directory, gone) = directory("sweep");
        let in_directory = |name: &str| directory.join(name);
        let left = |name: &str| {
            let path = in_directory(name);
            drop(UnixListener::bind(&path).expect("a socket"));
            path
        };
        let ours = left(&format!("{}.sock", std::process::id()));
        let other = left("notes.sock");
        // No process has these numbers. One socket has a listener all the same, the other file is no socket.
        let elsewhere = in_directory("4194306.sock");
        let _listener = UnixListener::bind(&elsewhere).expect("listens");
        let notes = in_directory("4194307.sock");
        fs::write(&notes, "notes").expect("a file");
        assert_eq!(path_in(&directory).expect("ours"), ours);
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
    fn a_run_takes_the_next_directory_where_the_first_cannot_be_used_and_is_found_there() {
        let (first, _) = directory("first");
        let (second, _) = directory("second");
        fs::set_permissions(&first, Permissions::from_mode(0o777)).expect("mode");
        let ours = first_path(&[first.clone(), second.clone()]).expect("the second");
        assert_eq!(ours.parent(), Some(&*second));
        let _listener = UnixListener::bind(&ours).expect("listens");
        assert_eq!(listening_in(&second), [(std::process::id(), ours)]);
        assert_eq!(listening_in(&first), []);
        let error = first_path(std::slice::from_ref(&first))
            .expect_err("refused")
            .to_string();
        assert!(error.contains("(mode 777)"), "{error}");
        for directory in [first, second] {
            fs::remove_dir_all(directory).expect("removed");
        }
    }

    #[test]
    fn a_runtime_directory_that_others_may_change_is_not_used() {
        let (directory, gone) = directory("shared");
        for (mode, part) in [(0o777, "(mode 777)"), (0o720, "(mode 720)")] {
            fs::set_permissions(&directory, Permissions::from_mode(mode)).expect("mode");
            let error = path_in(&directory).expect_err("refused").to_string();
            assert!(error.contains(part), "{error}");
            assert!(gone.exists(), "nothing is removed there");
        }
        fs::remove_dir_all(&directory).expect("removed");
    }

    #[test]
    fn a_runtime_directory_of_another_user_is_not_used() {
        let (directory, gone) = directory("foreign");
        let link = directory.with_extension("link");
        symlink(&directory, &link).expect("a symbolic link");
        assert!(matches!(path_in(&link), Err(RuntimeDirError::Host { .. })));
        assert!(gone.exists(), "nothing is removed there");
        fs::remove_file(link).expect("removed");
        if geteuid().is_root() {
            std::os::unix::fs::chown(&directory, Some(65_534), None).expect("another's");
            let error = path_in(&directory).expect_err("refused").to_string();
            assert!(error.contains("another user (id 65534)"), "{error}");
            assert!(gone.exists(), "nothing is removed there");
        }
        fs::remove_dir_all(&directory).expect("removed");
    }
}
