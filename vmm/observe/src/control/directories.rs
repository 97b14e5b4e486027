//! The directories of control sockets whose paths the user does not name. A run takes the first directory that it
//! can use. `baton top` searches all of them, because a run of a service, of cron or of another shell has another
//! environment than `baton top`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

/// The directories for the user of this process, in order.
#[must_use]
pub fn directories() -> Vec<PathBuf> {
    directories_for(
        std::env::var_os("XDG_RUNTIME_DIR"),
        geteuid().as_raw(),
        Path::is_dir,
    )
}

/// The directories for user `uid`. `runtime` is the runtime directory that the environment names, if it does.
fn directories_for(
    runtime: Option<OsString>,
    uid: u32,
    is_dir: impl Fn(&Path) -> bool,
) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = Vec::new();
    let named = runtime.filter(|base| !base.is_empty()).map(PathBuf::from);
    // It exists while the user is logged in, even where the environment does not name it.
    let usual = PathBuf::from(format!("/run/user/{uid}"));
    let usual = Some(usual).filter(|base| is_dir(base));
    all.extend(
        [named, usual]
            .into_iter()
            .flatten()
            .map(|base| base.join("baton")),
    );
    if uid == 0 {
        all.push(PathBuf::from("/run/baton"));
    }
    // Any user can create this one. It is used only if no other user may write to it.
    all.push(PathBuf::from(format!("/tmp/baton-{uid}")));
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(runtime: Option<&str>, uid: u32, logged_in: bool) -> Vec<String> {
        directories_for(runtime.map(OsString::from), uid, |_| logged_in)
            .into_iter()
            .map(|path| path.display().to_string())
            .collect()
    }

    #[test]
    fn a_run_without_a_runtime_directory_is_found_from_a_shell_that_has_one() {
        for logged_in in [true, false] {
            for uid in [0, 1000] {
                let within = of(Some("/run/user/1000"), uid, logged_in);
                for runtime in [None, Some("")] {
                    for directory in of(runtime, uid, logged_in) {
                        assert!(within.contains(&directory), "{directory} in {within:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn each_user_has_a_directory_and_the_named_one_comes_first() {
        assert_eq!(of(None, 1000, false), ["/tmp/baton-1000"]);
        assert_eq!(of(None, 0, false), ["/run/baton", "/tmp/baton-0"]);
        assert_eq!(
            of(Some("/run/user/1000"), 1000, true),
            ["/run/user/1000/baton", "/tmp/baton-1000"]
        );
    }
}
