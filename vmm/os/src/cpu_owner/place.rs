//! The directory of the files of host CPUs. Processes that use the same directory see each other, so all users of
//! a host have one directory, as far as there is one to which they may write.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::process::geteuid;
use thiserror::Error;

use crate::directory::Directory;

/// The directory for all users. Root creates it; as in `/tmp`, each user may add files and remove only his own.
pub const HOST_DIRECTORY: &str = "/run/baton/cpus";
/// The environment variable that names another directory, or says `off`.
pub const VARIABLE: &str = "BATON_CPU_LOCKS";

const STICKY: u32 = 0o1000;
/// Permission of the group and of all users to write.
const OTHERS_WRITE: u32 = 0o022;

/// Where the files of host CPUs are.
#[derive(Debug)]
pub enum Place {
    /// In a directory that all users of this host have in common, or that the environment names.
    Common(Directory),
    /// In a directory of this user. Processes of other users are not seen.
    OwnUser {
        /// The directory.
        directory: Directory,
        /// Why it is not [`HOST_DIRECTORY`].
        reason: PlaceError,
    },
    /// Nowhere: the environment says so.
    Off,
}

/// A directory cannot be used for the files of host CPUs.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// It is missing, or this process may not write to it.
    #[error("{} cannot be used: {source}", path.display())]
    Host {
        /// The directory.
        path: PathBuf,
        /// The host's reason.
        source: io::Error,
    },
    /// Other users may remove files of this user there.
    #[error("other users may remove files from {} (mode {mode:04o}); chmod 1777 or chmod go-w prevents that", path.display())]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

impl Place {
    /// The place for this process. The directory is created if it is missing.
    ///
    /// # Errors
    /// If no directory can be used: why the first cannot.
    pub fn find() -> Result<Self, PlaceError> {
        let named = std::env::var_os(VARIABLE);
        match named.filter(|value| !value.is_empty()) {
            Some(value) if value == OsStr::new("off") => Ok(Self::Off),
            Some(path) => open_own(Path::new(&path)).map(Self::Common),
            None => {
                let host = Path::new(HOST_DIRECTORY);
                let uid = geteuid().as_raw();
                if uid == 0 {
                    create_for_all(host);
                }
                Self::common_or_own(host, &own_directories(uid))
            }
        }
    }

    /// The directory `host`, or the first of `own` that can be used.
    fn common_or_own(host: &Path, own: &[PathBuf]) -> Result<Self, PlaceError> {
        let reason = match open(host) {
            Ok(directory) => return Ok(Self::Common(directory)),
            Err(reason) => reason,
        };
        match own.iter().find_map(|path| open_own_below(path)) {
            Some(directory) => Ok(Self::OwnUser { directory, reason }),
            None => Err(reason),
        }
    }
}

/// The directories of Baton for user `uid`. They follow from the user alone, so two shells of a user see each
/// other whatever their environments are.
fn own_directories(uid: u32) -> [PathBuf; 2] {
    [
        format!("/run/user/{uid}/baton"),
        format!("/tmp/baton-{uid}"),
    ]
    .map(PathBuf::from)
}

/// Opens the directory `cpus` in a directory of this user. Both are created if they are missing.
fn open_own_below(path: &Path) -> Option<Directory> {
    open_own(path).ok()?;
    open_own(&path.join("cpus")).ok()
}

/// Creates `path`, to which all users may then write. Where that fails, opening it reports why.
fn create_for_all(path: &Path) {
    if let Some(parent) = path.parent() {
        // Control sockets are here too, and have modes of their own.
        let _ = DirBuilder::new().mode(0o755).create(parent);
    }
    if DirBuilder::new().mode(0o755).create(path).is_ok() {
        // The mode at the creation is subject to the umask.
        let _ = rustix::fs::chmod(path, Mode::from_raw_mode(STICKY | 0o777));
    }
}

/// Opens the directory `path`, which is created for this user alone if it is missing.
fn open_own(path: &Path) -> Result<Directory, PlaceError> {
    // It may exist.
    let _ = DirBuilder::new().mode(0o700).create(path);
    open(path)
}

/// Opens the directory `path` if this process may write to it, and others may not remove this user's files.
fn open(path: &Path) -> Result<Directory, PlaceError> {
    let host = |source| PlaceError::Host {
        path: path.to_owned(),
        source,
    };
    let directory = Directory::open_no_link(path).map_err(host)?;
    directory.check_writable().map_err(host)?;
    let status = directory.status().map_err(host)?;
    if ![0, geteuid().as_raw()].contains(&status.st_uid) {
        return Err(host(io::Error::new(
            ErrorKind::PermissionDenied,
            format!("it belongs to another user (id {})", status.st_uid),
        )));
    }
    match status.st_mode & 0o7777 {
        mode if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 => Err(PlaceError::Unsafe {
            path: path.to_owned(),
            mode,
        }),
        _ => Ok(directory),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let name = format!("baton-cpu-place-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a directory");
        path
    }

    #[test]
    fn root_creates_a_directory_in_which_each_user_may_remove_his_own_files_only() {
        let scratch = scratch("common");
        let host = scratch.join("baton/cpus");
        create_for_all(&host);
        let mode = |path: &Path| {
            fs::metadata(path)
                .expect("a directory")
                .permissions()
                .mode()
        };
        assert_eq!(mode(&host) & 0o7777, 0o1777);
        assert_eq!(mode(&scratch.join("baton")) & 0o022, 0);
        assert!(open(&host).is_ok());
        fs::remove_dir_all(scratch).expect("removed");
    }

    #[test]
    fn a_directory_from_which_others_may_remove_files_and_a_link_are_not_used() {
        let scratch = scratch("unsafe");
        let path = scratch.join("cpus");
        fs::create_dir(&path).expect("a directory");
        fs::set_permissions(&path, Permissions::from_mode(0o777)).expect("a mode");
        let error = open(&path).expect_err("unsafe").to_string();
        assert!(error.contains("(mode 0777)"), "{error}");
        fs::set_permissions(&path, Permissions::from_mode(0o1777)).expect("a mode");
        assert!(open(&path).is_ok());
        let link = scratch.join("link");
        symlink(&path, &link).expect("a symbolic link");
        assert!(open(&link).is_err());
        fs::remove_dir_all(scratch).expect("removed");
    }

    #[test]
    fn a_user_without_the_common_directory_has_one_of_his_own_and_the_reason() {
        let scratch = scratch("missing");
        let host = scratch.join("baton/cpus");
        let own = scratch.join("own");
        let absent = scratch.join("absent/baton");
        let place = Place::common_or_own(&host, &[absent.clone(), own.clone()]);
        let Ok(Place::OwnUser { reason, .. }) = place else {
            panic!("{place:?}");
        };
        assert!(
            reason.to_string().contains("baton/cpus cannot be used"),
            "{reason}"
        );
        assert!(own.join("cpus").is_dir());
        assert!(Place::common_or_own(&host, &[absent]).is_err());
        fs::remove_dir_all(scratch).expect("removed");
    }
}
