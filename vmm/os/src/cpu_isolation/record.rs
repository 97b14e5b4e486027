//! The file with what an isolation changes. It is written before each change, and removed after all are undone.

use std::ffi::OsStr;
use std::fmt::Write;
use std::io::{self, ErrorKind, Read};
use std::path::PathBuf;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::process::geteuid;

use super::affinities::Affinities;
use super::change::Change;
use super::cpu_list;
use super::error::IsolationError;
use super::partition::Partition;
use super::shield::Shield;
use crate::directory::Directory;

/// Name of the file, in the directory of CPU locks.
pub const RECORD: &str = "isolation.record";
/// Longest file, bytes: room for a line for each of the most tasks that Linux can have.
const MAX_TEXT: u64 = 256 << 20;
/// The last line, which a file that was cut lacks.
const END: &str = "end of record\n";
/// Permission of the group and of all users to write.
const OTHERS_WRITE: u32 = 0o022;

/// Where the record is kept.
pub(super) trait Records {
    /// Replaces the record as a whole.
    fn keep(&self, text: &str) -> io::Result<()>;
    /// The record, if there is one of this user.
    fn kept(&self) -> io::Result<Option<String>>;
    /// Removes the record.
    fn remove(&self) -> io::Result<()>;
}

impl Records for Directory {
    fn keep(&self, text: &str) -> io::Result<()> {
        self.replace(OsStr::new(RECORD), text.as_bytes())
    }

    fn kept(&self) -> io::Result<Option<String>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let file = match self.open_file(OsStr::new(RECORD), flags, Mode::empty()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        // All users may write to the directory, and what the file says is done with the rights of this process.
        let status = rustix::fs::fstat(&file)?;
        let ours = FileType::from_raw_mode(status.st_mode) == FileType::RegularFile
            && status.st_uid == geteuid().as_raw()
            && status.st_mode & OTHERS_WRITE == 0
            && status.st_nlink == 1;
        if !ours {
            return Ok(None);
        }
        let mut text = String::new();
        file.take(MAX_TEXT).read_to_string(&mut text)?;
        Ok(Some(text))
    }

    fn remove(&self) -> io::Result<()> {
        match Self::remove(self, OsStr::new(RECORD)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

/// The text of a record: a line for each field, a word and its value.
pub(super) fn to_text(change: &Change) -> String {
    let (version, root, all, others, affinities) = match change {
        Change::Partition(own) => (2, &own.root, &own.all, &own.others, &own.affinities),
        Change::Shield(own) => (1, &own.root, &own.all, &own.others, &own.affinities),
    };
    let mut text = format!(
        "version {version}\nroot {}\nall {}\nothers {}\n",
        root.display(),
        cpu_list::format(all),
        cpu_list::format(others)
    );
    // Writing to a String cannot fail.
    if let Change::Partition(partition) = change {
        let _ = writeln!(text, "former {}", partition.former.display());
        let _ = writeln!(text, "enabled {}", partition.enabled);
    }
    for (task, begin, cpus) in affinities.iter() {
        let _ = writeln!(text, "task {task} {begin} {}", cpu_list::format(cpus));
    }
    text.push_str(END);
    text
}

/// Reads what [`to_text`] wrote.
pub(super) fn parse(text: &str) -> Result<Change, IsolationError> {
    parse_fields(text).ok_or(IsolationError::BadRecord { file: RECORD })
}

fn parse_fields(text: &str) -> Option<Change> {
    let text = text.strip_suffix(END)?;
    let value = |word: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines
            .find(|(first, _)| *first == word)
            .map(|(_, rest)| rest)
    };
    let root = PathBuf::from(value("root")?);
    let all = cpu_list::parse(value("all")?)?;
    let others = cpu_list::parse(value("others")?)?;
    let affinities = parse_tasks(text)?;
    match value("version")? {
        "2" => Some(Change::Partition(Partition {
            root,
            all,
            others,
            affinities,
            former: value("former")?.into(),
            enabled: value("enabled")?.parse().ok()?,
        })),
        "1" => Some(Change::Shield(Shield {
            root,
            all,
            others,
            affinities,
        })),
        _ => None,
    }
}

fn parse_tasks(text: &str) -> Option<Affinities> {
    let mut affinities = Affinities::default();
    for line in text.lines().filter_map(|line| line.strip_prefix("task ")) {
        let mut fields = line.split(' ');
        let (task, begin) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        affinities.add(task, begin, cpu_list::parse(fields.next()?)?);
    }
    Some(affinities)
}
