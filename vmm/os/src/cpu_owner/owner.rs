//! The text in the file of a host CPU, for the error that another process prints.

use std::fmt;
use std::path::{Path, PathBuf};

/// Most bytes that are read of a file.
pub(super) const MAX_TEXT: u64 = 512;

/// The process that owns a host CPU, as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its process id.
    pub pid: u32,
    /// What it is, such as `baton run db`.
    pub what: String,
    /// The directory of the sockets of a pool that runs the guests of other processes.
    pub pool: Option<PathBuf>,
}

impl Owner {
    /// This process, which is `what`.
    #[must_use]
    pub fn this_process(what: &str) -> Self {
        Self {
            pid: std::process::id(),
            what: what.to_owned(),
            pool: None,
        }
    }

    /// The same, with a pool whose sockets are in `directory`.
    #[must_use]
    pub fn with_pool(self, directory: &Path) -> Self {
        let pool = Some(directory.to_owned());
        Self { pool, ..self }
    }

    /// The text for the file: a line for each field, a word and its value.
    pub(super) fn to_text(&self) -> String {
        let one_line = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
        let mut text = format!("pid {}\nwhat {}\n", self.pid, one_line(&self.what));
        if let Some(pool) = &self.pool {
            text += &format!("pool {}\n", one_line(&pool.to_string_lossy()));
        }
        text
    }

    /// Reads what [`Self::to_text`] wrote. Lines of other words belong to later versions. `None` if the text
    /// does not describe a process: another user may have written it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let value = |word| {
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            lines
                .find(|(first, _)| *first == word)
                .map(|(_, rest)| rest)
        };
        Some(Self {
            pid: value("pid")?.parse().ok()?,
            what: value("what")?.escape_debug().to_string(),
            pool: value("pool").map(|pool| pool.escape_debug().to_string().into()),
        })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {})", self.what, self.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_read_as_it_was_written_and_later_versions_may_add_lines() {
        let owner = Owner {
            pid: 12,
            what: "baton run db".to_owned(),
            pool: None,
        };
        let pool = owner.clone().with_pool(Path::new("/run/baton/pool"));
        assert_eq!(Owner::parse(&pool.to_text()), Some(pool));
        let text = owner.to_text();
        assert_eq!(Owner::parse(&text).as_ref(), Some(&owner));
        assert_eq!(Owner::parse(&format!("socket /x\n{text}")), Some(owner));
    }

    #[test]
    fn a_text_that_another_user_made_up_cannot_reach_the_terminal() {
        for text in [
            "",
            "pid 1\n",
            "what x\n",
            "pid -1\nwhat x\n",
            "pid one\nwhat x",
        ] {
            assert_eq!(Owner::parse(text), None, "{text}");
        }
        let owner = Owner::parse("pid 1\nwhat \x1b[2Jx\n").expect("an owner");
        assert!(!owner.to_string().contains('\x1b'), "{owner}");
        let named = Owner::this_process("baton run a\nb");
        assert_eq!(named.to_text().lines().count(), 2);
    }
}
