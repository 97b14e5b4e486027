//! Whose a name is. A name is free when its guest has ended. If the guest's process has only left the pool, or the
//! pool was gone, the guest may join again, and its name is kept for its user until it has had time for that.
//!
//! The names are in a file in the pool's directory, so that the next pool knows them: a line for each, with the number
//! of the user and the name.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use baton_link::message::MAX_NAME;
use thiserror::Error;
use vcpu_sched::Ns;

/// The file in the pool's directory.
const FILE: &str = "names";
/// The same while it is written.
const NEW_FILE: &str = "names.new";
/// How long a name is kept for the user of a guest whose process has left without the guest's end, ns.
const KEPT: Ns = 30_000_000_000;
/// How long a pool that starts keeps the names of the one before, ns. A guest without a pool tries to join again every
/// 2 s, one that was refused every 10 s.
const KEPT_AT_START: Ns = 60_000_000_000;
/// Most names that are kept for one user.
const MAX_KEPT: usize = 256;
/// Longest file, bytes.
const MAX_FILE: u64 = 1 << 20;

/// A name is another user's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameRefused {
    /// A guest of that user has it.
    #[error("guest {0}: the pool has a guest of this name; give another name")]
    Taken(String),
    /// A guest of that user has had it, and may join again.
    #[error(
        "guest {name}: the name is kept for {left}s for the guest of user {uid} that has had it and may join again; \
         give another name"
    )]
    Kept {
        /// The name.
        name: String,
        /// The user.
        uid: u32,
        /// For how long still, s.
        left: u64,
    },
}

/// Whose a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holder {
    uid: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The guest with this number has it.
    Used(u64),
    /// It is kept until this time, ns.
    Kept(Ns),
}

/// The names of a pool's guests of other processes.
#[derive(Debug, Default)]
pub struct Names {
    /// The pool's directory; `None`: the next pool does not get the names.
    directory: Option<PathBuf>,
    holders: Mutex<BTreeMap<String, Holder>>,
}

impl Names {
    /// Those that the pool before this one has left in `directory`. They are kept from the time `now` on, ns.
    #[must_use]
    pub fn load(directory: &Path, now: Ns) -> Self {
        let kept = State::Kept(now.saturating_add(KEPT_AT_START));
        let holders = match read(&directory.join(FILE)) {
            Ok(text) => parse(&text, kept),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, "the names of the pool before cannot be read");
                }
                BTreeMap::new()
            }
        };
        Self {
            directory: Some(directory.to_owned()),
            holders: Mutex::new(holders),
        }
    }

    fn holders(&self) -> MutexGuard<'_, BTreeMap<String, Holder>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a guest of user `uid` may be called `name` at the time `now`, ns, as far as other users are concerned.
    ///
    /// # Errors
    /// If it is another user's.
    pub(crate) fn check(&self, name: &str, uid: u32, now: Ns) -> Result<(), NameRefused> {
        let holders = self.holders();
        let Some(holder) = holders.get(name).filter(|holder| holder.uid != uid) else {
            return Ok(());
        };
        let name = name.to_owned();
        match holder.state {
            State::Used(_) => Err(NameRefused::Taken(name)),
            State::Kept(until) if until <= now => Ok(()),
            State::Kept(until) => Err(NameRefused::Kept {
                name,
                uid: holder.uid,
                left: (until - now).div_ceil(1_000_000_000),
            }),
        }
    }

    /// The guest `number` of user `uid` has the `name` from the time `now` on, ns.
    pub(crate) fn take(&self, name: &str, uid: u32, number: u64, now: Ns) {
        let mut holders = self.holders();
        let state = State::Used(number);
        holders.insert(name.to_owned(), Holder { uid, state });
        self.write(&mut holders, now);
    }

    /// The guest `number` has left at the time `now`, ns. Its name is kept for its user if it `may_return`.
    pub(crate) fn leave(&self, name: &str, number: u64, may_return: bool, now: Ns) {
        let mut holders = self.holders();
        // The user's next guest may have the name by now.
        let own = holders.get_mut(name);
        let Some(own) = own.filter(|holder| holder.state == State::Used(number)) else {
            return;
        };
        if may_return {
            own.state = State::Kept(now.saturating_add(KEPT));
            let uid = own.uid;
            forget_oldest(&mut holders, uid);
        } else {
            holders.remove(name);
        }
        self.write(&mut holders, now);
    }

    /// Writes the file, without what is not kept any more at the time `now`, ns.
    fn write(&self, holders: &mut BTreeMap<String, Holder>, now: Ns) {
        holders.retain(|_, holder| !matches!(holder.state, State::Kept(until) if until <= now));
        let Some(directory) = &self.directory else {
            return;
        };
        let lines = holders
            .iter()
            .map(|(name, holder)| format!("{} {name}\n", holder.uid));
        if let Err(error) = replace(directory, &lines.collect::<String>()) {
            // Guests run all the same.
            tracing::warn!(%error, "the names of guests cannot be written for the next pool");
        }
    }
}

/// Forgets the name that was kept first for user `uid`, if there are too many.
fn forget_oldest(holders: &mut BTreeMap<String, Holder>, uid: u32) {
    let kept = |(name, holder): (&String, &Holder)| match holder.state {
        State::Kept(until) if holder.uid == uid => Some((until, name.clone())),
        _ => None,
    };
    let kept: Vec<_> = holders.iter().filter_map(kept).collect();
    if kept.len() > MAX_KEPT
        && let Some((_, name)) = kept.into_iter().min()
    {
        holders.remove(&name);
    }
}

fn read(path: &Path) -> io::Result<String> {
    let no_link = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(no_link)
        .open(path)?;
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

/// The names in the lines of `text`. A line that was cut off names nobody.
fn parse(text: &str, state: State) -> BTreeMap<String, Holder> {
    let lines = text.split_inclusive('\n');
    let whole = lines.filter_map(|line| line.strip_suffix('\n'));
    let named = whole.filter_map(|line| {
        let (uid, name) = line.split_once(' ')?;
        let holder = Holder {
            uid: uid.parse().ok()?,
            state,
        };
        (1..=MAX_NAME)
            .contains(&name.len())
            .then(|| (name.to_owned(), holder))
    });
    named.collect()
}

/// Puts `text` in the place of the file in `directory`. Whoever reads it finds the old one or the new one.
fn replace(directory: &Path, text: &str) -> io::Result<()> {
    let new = directory.join(NEW_FILE);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let no_link = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    let mut file: File = options.custom_flags(no_link).open(&new)?;
    file.write_all(text.as_bytes())?;
    drop(file);
    fs::rename(new, directory.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: u32 = 1000;
    const BOB: u32 = 1001;

    fn kept(left: u64) -> NameRefused {
        NameRefused::Kept {
            name: "web".to_owned(),
            uid: ALICE,
            left,
        }
    }

    #[test]
    fn a_name_is_its_users_while_its_guest_is_there_or_may_return() {
        let names = Names::default();
        assert_eq!(names.check("web", BOB, 0), Ok(()));
        names.take("web", ALICE, 1, 0);
        let taken = Err(NameRefused::Taken("web".to_owned()));
        assert_eq!(names.check("web", BOB, KEPT), taken);
        assert_eq!(names.check("web", ALICE, 0), Ok(()), "the pool decides");
        names.leave("web", 1, true, 5);
        assert_eq!(names.check("web", BOB, 5), Err(kept(30)));
        assert_eq!(names.check("web", BOB, 4 + KEPT), Err(kept(1)));
        assert_eq!(names.check("web", ALICE, 5), Ok(()));
        assert_eq!(names.check("web", BOB, 5 + KEPT), Ok(()));
        names.take("web", BOB, 2, 5 + KEPT);
        names.leave("web", 2, false, 5 + KEPT);
        assert_eq!(names.check("web", ALICE, 5 + KEPT), Ok(()), "it has ended");
    }

    #[test]
    fn a_guest_that_leaves_late_takes_no_name_from_the_next_one() {
        let names = Names::default();
        names.take("web", ALICE, 1, 0);
        names.take("web", ALICE, 2, 0);
        names.leave("web", 1, false, 0);
        assert!(names.check("web", BOB, 0).is_err());
    }

    #[test]
    fn the_names_of_a_pool_are_kept_by_the_next_one_and_those_of_guests_that_have_ended_are_not() {
        let directory = std::env::temp_dir().join(format!("baton-names-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let first = Names::load(&directory, 0);
        for (number, name) in (0..).zip(["web", "a b", "gone"]) {
            first.take(name, ALICE, number, 0);
        }
        first.leave("gone", 2, false, 0);
        let second = Names::load(&directory, 0);
        for name in ["web", "a b"] {
            assert_eq!(second.check(name, ALICE, 0), Ok(()));
            assert!(second.check(name, BOB, KEPT_AT_START - 1).is_err());
            assert_eq!(second.check(name, BOB, KEPT_AT_START), Ok(()));
        }
        assert_eq!(second.check("gone", BOB, 0), Ok(()));
        fs::remove_dir_all(&directory).expect("removed");
    }

    #[test]
    fn lines_that_make_no_sense_or_were_cut_off_name_nobody() {
        let text = "1000 web\nx y\n\n7\n-1 db\n5 \n1000 cut";
        let parsed = parse(text, State::Kept(1));
        assert_eq!(parsed.into_keys().collect::<Vec<_>>(), ["web"]);
    }

    #[test]
    fn one_user_has_so_many_names_kept_and_the_oldest_is_forgotten() {
        let names = Names::default();
        for number in 0..=MAX_KEPT as u64 {
            let name = number.to_string();
            names.take(&name, ALICE, number, number);
            names.leave(&name, number, true, number);
        }
        assert_eq!(names.check("0", BOB, 0), Ok(()));
        assert!(names.check("1", BOB, 0).is_err());
        assert_eq!(names.holders().len(), MAX_KEPT);
    }
}
