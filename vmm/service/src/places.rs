//! Where the sockets of a pool are.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use baton_observe::control::directories;
use baton_os::directory::Directory;
use rustix::process::geteuid;
use thiserror::Error;

/// The directory of the pool of a host.
pub const HOST_DIRECTORY: &str = "/run/baton/pool";
/// The socket at which guests' processes join.
pub const LINK_SOCKET: &str = "link.sock";
/// The socket of the API.
pub const API_SOCKET: &str = "api.sock";

/// A directory cannot be that of a pool.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// It cannot be created or opened.
    #[error("{} cannot be the directory of a pool: {source}; give another --dir", path.display())]
    Host {
        /// The directory.
        path: PathBuf,
        /// The host's reason.
        source: io::Error,
    },
    /// Other users may replace the sockets in it.
    #[error(
        "{} cannot be the directory of a pool, because other users may write to it (owner {owner}, mode {mode:03o}); \
         give another --dir", path.display()
    )]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its permissions.
        mode: u32,
    },
    /// No pool listens.
    #[error(
        "no pool runs here (in {0}); start one with baton pool, or name its directory with --pool"
    )]
    NoPool(String),
}

/// The directory of the pool of this user, if he names none.
#[must_use]
pub fn default_directory() -> PathBuf {
    match geteuid().is_root() {
        true => PathBuf::from(HOST_DIRECTORY),
        false => {
            let own = directories().into_iter().next().unwrap_or_default();
            own.join("pool")
        }
    }
}

/// Creates the directory `path`, in which all users can reach sockets and only this one can create any.
///
/// # Errors
/// If it cannot be created, or other users may write to it.
pub fn create(path: &Path) -> Result<(), PlaceError> {
    let host = |source| PlaceError::Host {
        path: path.to_owned(),
        source,
    };
    if let Some(parent) = path.parent() {
        // Other users must be able to pass it. It may exist.
        let _ = DirBuilder::new().mode(0o755).create(parent);
    }
    match DirBuilder::new().mode(0o755).create(path) {
        // The umask has taken rights away.
        Ok(()) => std::fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(host)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(host(error)),
    }
    let status = Directory::open_no_link(path).and_then(|directory| directory.status());
    let status = status.map_err(host)?;
    if status.st_uid != geteuid().as_raw() || status.st_mode & 0o022 != 0 {
        return Err(PlaceError::Unsafe {
            path: path.to_owned(),
            owner: status.st_uid,
            mode: status.st_mode & 0o777,
        });
    }
    Ok(())
}

/// The directory of a pool that runs: `named`, or the first of those of this user and of the host at which one
/// listens.
///
/// # Errors
/// [`PlaceError::NoPool`] if none listens.
pub fn find(named: Option<&Path>) -> Result<PathBuf, PlaceError> {
    let candidates: Vec<PathBuf> = match named {
        // The path of a socket in it is as good.
        Some(path) if path.extension().is_some_and(|end| end == "sock") => {
            vec![path.parent().unwrap_or(Path::new(".")).to_owned()]
        }
        Some(path) => vec![path.to_owned()],
        None => {
            let own = directories()
                .into_iter()
                .map(|directory| directory.join("pool"));
            own.chain([PathBuf::from(HOST_DIRECTORY)]).collect()
        }
    };
    let listens = |path: &&PathBuf| {
        let directory = Directory::open_no_link(path);
        directory
            .and_then(|open| open.connect(API_SOCKET.as_ref()))
            .is_ok()
    };
    candidates.iter().find(listens).cloned().ok_or_else(|| {
        let all: Vec<String> = candidates
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        PlaceError::NoPool(all.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_directory_is_reachable_for_all_and_one_that_others_may_write_to_is_refused() {
        let path = std::env::temp_dir().join(format!("baton-place-{}", std::process::id()));
        create(&path).expect("created");
        let mode = || fs::metadata(&path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(), 0o755);
        create(&path).expect("it is there already");
        assert!(matches!(find(Some(&path)), Err(PlaceError::NoPool(_))));
        fs::set_permissions(&path, Permissions::from_mode(0o777)).expect("a mode");
        assert!(matches!(create(&path), Err(PlaceError::Unsafe { .. })));
        fs::remove_dir(&path).expect("removed");
    }
}
