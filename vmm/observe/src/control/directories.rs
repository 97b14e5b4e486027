//! The directories of control sockets that are not named by the user. A run takes the first that can be
//! used; who looks for runs looks in all of them, for a run of a service, of cron or of another shell has
//! another environment than whoever watches it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

/// Those of this process, in order.
#[must_use]
pub fn directories() -> Vec<PathBuf> {
    places(
        std::env::var_os("XDG_RUNTIME_DIR"),
        geteuid().as_raw(),
        Path::is_dir,
    )
}

/// Those of user `uid`; `runtime` is what the environment says of its runtime directory.
fn places(runtime: Option<OsString>, uid: u32, is_dir: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = Vec::new();
    let named = runtime.filter(|base| !base.is_empty()).map(PathBuf::from);
    // Where the environment does not say it, it is there all the same while the user is logged in.
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
    // Everybody can make that one. It is used only if it is this user's alone.
    all.push(PathBuf::from(format!("/tmp/baton-{uid}")));
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(runtime: Option<&str>, uid: u32, logged_in: bool) -> Vec<String> {
        places(runtime.map(OsString::from), uid, |_| logged_in)
            .into_iter()
            .map(|path| path.display().to_string())
            .collect()
    }

    #[test]
    fn a_run_without_a_runtime_directory_is_where_one_with_it_looks_too() {
        for logged_in in [true, false] {
            for uid in [0, 1000] {
                let within = of(Some("/run/user/1000"), uid, logged_in);
                for runtime in [None, Some("")] {
                    for place in of(runtime, uid, logged_in) {
                        assert!(within.contains(&place), "{place} in {within:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn each_user_has_a_place_and_the_named_one_comes_first() {
        assert_eq!(of(None, 1000, false), ["/tmp/baton-1000"]);
        assert_eq!(of(None, 0, false), ["/run/baton", "/tmp/baton-0"]);
        assert_eq!(
            of(Some("/run/user/1000"), 1000, true),
            ["/run/user/1000/baton", "/tmp/baton-1000"]
        );
    }
}
