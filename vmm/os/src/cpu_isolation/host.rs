//! Files and tasks of this host, as far as an isolation changes them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::sys;

/// A host: the kernel's files and tasks. Tests have one that keeps all of it in memory, and that fails on request.
pub(super) trait Host {
    /// The text of a file.
    fn read(&self, path: &Path) -> io::Result<String>;
    /// Writes `text` to a file of the kernel, in one piece.
    fn write(&self, path: &Path, text: &str) -> io::Result<()>;
    /// Creates a control group.
    fn create_group(&self, path: &Path) -> io::Result<()>;
    /// Removes a control group, which must have no tasks and no groups in it.
    fn remove_group(&self, path: &Path) -> io::Result<()>;
    /// Whether there is such a control group.
    fn has_group(&self, path: &Path) -> bool;
    /// The control groups in a control group.
    fn groups(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// The host CPUs that a task may use, ascending.
    fn affinity(&self, task: i32) -> io::Result<Vec<usize>>;
    /// Pins a task to host CPUs.
    fn set_affinity(&self, task: i32, cpus: &[usize]) -> io::Result<()>;
    /// When a task began, which tells it from a later one with the same number.
    fn begin_of(&self, task: i32) -> Option<u64>;
    /// The process of a caller.
    fn own_process(&self) -> u32;
    /// The tasks of this process.
    fn own_tasks(&self) -> io::Result<Vec<i32>>;
    /// All tasks of this host.
    fn all_tasks(&self) -> io::Result<Vec<i32>>;
    /// Waits a moment for the kernel, such as for a process that is ending.
    fn wait(&self);
}

/// This host.
#[derive(Debug)]
pub(super) struct ThisHost;

impl Host for ThisHost {
    fn read(&self, path: &Path) -> io::Result<String> {
        fs::read_to_string(path)
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        // The file of a group that is gone must not become an ordinary one.
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.write_all(text.as_bytes())
    }

    fn create_group(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn remove_group(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn has_group(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn groups(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(path)?.flatten();
        let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        Ok(groups.map(|entry| entry.path()).collect())
    }

    fn affinity(&self, task: i32) -> io::Result<Vec<usize>> {
        sys::affinity_of(task)
    }

    fn set_affinity(&self, task: i32, cpus: &[usize]) -> io::Result<()> {
        sys::set_affinity_of(task, cpus)
    }

    fn begin_of(&self, task: i32) -> Option<u64> {
        let stat = fs::read_to_string(format!("/proc/{task}/stat")).ok()?;
        // The second field is the name in brackets, which may have blanks; the begin is field 22.
        let (_, fields) = stat.rsplit_once(')')?;
        fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
    }

    fn own_process(&self) -> u32 {
        std::process::id()
    }

    fn own_tasks(&self) -> io::Result<Vec<i32>> {
        numbers_in(Path::new("/proc/self/task"))
    }

    fn all_tasks(&self) -> io::Result<Vec<i32>> {
        let processes = numbers_in(Path::new("/proc"))?;
        let tasks = processes.iter().map(|process| {
            let tasks = format!("/proc/{process}/task");
            // It may have ended.
            numbers_in(Path::new(&tasks)).unwrap_or_default()
        });
        Ok(tasks.flatten().collect())
    }

    fn wait(&self) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// The numbers that are names in a directory.
fn numbers_in(path: &Path) -> io::Result<Vec<i32>> {
    let entries = fs::read_dir(path)?.flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(numbers.collect())
}
