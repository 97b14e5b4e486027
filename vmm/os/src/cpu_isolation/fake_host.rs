//! A host in memory, with control groups of either version as far as an isolation uses them. Any of its changes can
//! fail, or be the last before this process dies.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::cpu_list;
use super::host::Host;
use super::record::Records;

pub(super) const ROOT: &str = "/cgroup";
/// The process that isolates, and its second thread.
pub(super) const OWN: [i32; 2] = [100, 101];

/// The host CPUs.
const ALL: [usize; 3] = [0, 1, 2];

/// A task of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) group: PathBuf,
    pub(super) cpus: Vec<usize>,
    /// What it has requested, if its kernel remembers that.
    requested: Option<Vec<usize>>,
    /// Whether it is a thread of the kernel with a host CPU of its own.
    bound: bool,
}

/// What goes wrong, by the number of the change.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trouble {
    /// The change with this number fails.
    Fails(u32),
    /// The process dies before the change with this number.
    Dies(u32),
}

/// All that a test compares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    files: BTreeMap<PathBuf, String>,
    groups: BTreeSet<PathBuf>,
    pub(super) tasks: BTreeMap<i32, Task>,
    pub(super) record: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct FakeHost {
    state: RefCell<State>,
    changes: RefCell<u32>,
    pub(super) trouble: RefCell<Option<Trouble>>,
    /// How many tasks that are moved away have created another one just before.
    pub(super) forks: RefCell<u32>,
    /// Whether the kernel makes no partitions.
    pub(super) refuses_partitions: RefCell<bool>,
}

impl FakeHost {
    pub(super) fn file(&self, path: impl AsRef<Path>, text: &str) {
        let path = path.as_ref().to_owned();
        self.state.borrow_mut().files.insert(path, text.to_owned());
    }

    pub(super) fn group(&self, path: impl AsRef<Path>) {
        self.state.borrow_mut().groups.insert(path.as_ref().into());
    }

    pub(super) fn task(&self, number: i32, group: &str, cpus: &[usize], bound: bool) {
        let task = Task {
            group: group.into(),
            cpus: cpus.into(),
            requested: None,
            bound,
        };
        self.state.borrow_mut().tasks.insert(number, task);
    }

    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// How many changes there were.
    pub(super) fn changes(&self) -> u32 {
        *self.changes.borrow()
    }

    /// From here on, nothing goes wrong, and changes are counted from zero.
    pub(super) fn without_trouble(&self) {
        *self.trouble.borrow_mut() = None;
        *self.changes.borrow_mut() = 0;
    }

    /// The process that isolated is gone.
    pub(super) fn own_process_ends(&self) {
        let mut state = self.state.borrow_mut();
        state.tasks.retain(|task, _| !OWN.contains(task));
    }

    fn change(&self) -> io::Result<()> {
        let mut number = self.changes.borrow_mut();
        *number += 1;
        match *self.trouble.borrow() {
            Some(Trouble::Fails(at)) if *number == at => Err(ErrorKind::PermissionDenied.into()),
            Some(Trouble::Dies(at)) if *number >= at => Err(io::Error::other("dead")),
            _ => Ok(()),
        }
    }

    /// Moves the tasks to a group.
    fn moves(&self, numbers: &[i32], group: &Path) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        let cpus = state.files.get(&group.join("cpuset.cpus"));
        let cpus = cpus.and_then(|text| cpu_list::parse(text));
        let cpus = cpus.unwrap_or(ALL.into());
        for number in numbers {
            let task = state.tasks.get_mut(number).ok_or(Errno::SRCH)?;
            if task.bound {
                return Err(Errno::INVAL.into());
            }
            let former = std::mem::replace(&mut task.group, group.into());
            if !cpus.is_empty() {
                let kept = task
                    .requested
                    .as_ref()
                    .map(|own| cpu_list::within(own, &cpus));
                task.cpus = kept.filter(|kept| !kept.is_empty()).unwrap_or(cpus.clone());
            }
            let mut forks = self.forks.borrow_mut();
            if *forks > 0 {
                *forks -= 1;
                let mut child = task.clone();
                child.group = former;
                child.cpus = ALL.into();
                let new = 1_000 + i32::try_from(*forks).expect("few");
                state.tasks.insert(new, child);
            }
        }
        Ok(())
    }

    /// The tasks outside of the partition `group` get `cpus`, whatever their affinities were.
    fn partition_changes(&self, group: &Path, cpus: &[usize]) {
        let mut state = self.state.borrow_mut();
        let tasks = state.tasks.values_mut();
        for task in tasks.filter(|task| !task.bound && task.group != group) {
            task.cpus = cpus.into();
        }
    }

    fn tasks_in(&self, group: &Path) -> Vec<i32> {
        let state = self.state.borrow();
        let tasks = state.tasks.iter().filter(|(_, task)| task.group == group);
        tasks.map(|(number, _)| *number).collect()
    }
}

impl Host for FakeHost {
    fn read(&self, path: &Path) -> io::Result<String> {
        let group = path.parent().ok_or(ErrorKind::NotFound)?;
        if path.ends_with("tasks") || path.ends_with("cgroup.procs") {
            if !self.has_group(group) {
                return Err(ErrorKind::NotFound.into());
            }
            let tasks = self.tasks_in(group);
            return Ok(tasks.iter().map(|task| format!("{task}\n")).collect());
        }
        let state = self.state.borrow();
        Ok(state.files.get(path).ok_or(ErrorKind::NotFound)?.clone())
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        self.change()?;
        let group = path.parent().ok_or(ErrorKind::NotFound)?;
        if !self.has_group(group) {
            return Err(ErrorKind::NotFound.into());
        }
        let control = PathBuf::from(ROOT).join("cgroup.subtree_control");
        let is_v2 = self.read(&control).is_ok();
        match path.file_name().and_then(|name| name.to_str()) {
            Some("tasks") => self.moves(&[text.parse().expect("a number")], group),
            Some("cgroup.procs") => {
                let number: i32 = text.parse().expect("a number");
                let all = if number == OWN[0] {
                    &OWN[..]
                } else {
                    &[number]
                };
                self.moves(all, group)
            }
            Some("cgroup.subtree_control") => {
                self.file(path, if text == "+cpuset" { "cpuset\n" } else { "" });
                Ok(())
            }
            _ if is_v2 && self.read(&control)?.is_empty() => Err(ErrorKind::NotFound.into()),
            Some("cpuset.cpus.partition") if text == "member" => {
                self.file(path, "member\n");
                self.partition_changes(group, &ALL);
                Ok(())
            }
            Some("cpuset.cpus.partition") if *self.refuses_partitions.borrow() => {
                self.file(
                    path,
                    "root invalid (Cpu list in cpuset.cpus not exclusive)\n",
                );
                Ok(())
            }
            Some("cpuset.cpus.partition") => {
                self.file(path, &format!("{text}\n"));
                let own = self.read(&group.join("cpuset.cpus"))?;
                let own = cpu_list::parse(&own).expect("a list");
                self.partition_changes(group, &cpu_list::without(&ALL, &own));
                Ok(())
            }
            _ => {
                self.file(path, &format!("{text}\n"));
                Ok(())
            }
        }
    }

    fn create_group(&self, path: &Path) -> io::Result<()> {
        self.change()?;
        match self.state.borrow_mut().groups.insert(path.into()) {
            true => Ok(()),
            false => Err(ErrorKind::AlreadyExists.into()),
        }
    }

    fn remove_group(&self, path: &Path) -> io::Result<()> {
        self.change()?;
        if !self.tasks_in(path).is_empty() {
            return Err(ErrorKind::ResourceBusy.into());
        }
        let partition = self.read(&path.join("cpuset.cpus.partition"));
        if partition.is_ok_and(|text| text.starts_with("root")) {
            self.partition_changes(path, &ALL);
        }
        let mut state = self.state.borrow_mut();
        state.files.retain(|file, _| !file.starts_with(path));
        match state.groups.remove(path) {
            true => Ok(()),
            false => Err(ErrorKind::NotFound.into()),
        }
    }

    fn has_group(&self, path: &Path) -> bool {
        self.state.borrow().groups.contains(path)
    }

    fn groups(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state.borrow();
        let groups = state
            .groups
            .iter()
            .filter(|group| group.parent() == Some(path));
        Ok(groups.cloned().collect())
    }

    fn affinity(&self, task: i32) -> io::Result<Vec<usize>> {
        let state = self.state.borrow();
        Ok(state.tasks.get(&task).ok_or(Errno::SRCH)?.cpus.clone())
    }

    fn set_affinity(&self, task: i32, cpus: &[usize]) -> io::Result<()> {
        self.change()?;
        let mut state = self.state.borrow_mut();
        state.tasks.get_mut(&task).ok_or(Errno::SRCH)?.cpus = cpus.into();
        Ok(())
    }

    fn begin_of(&self, task: i32) -> Option<u64> {
        let state = self.state.borrow();
        state.tasks.contains_key(&task).then_some(7)
    }

    fn own_process(&self) -> u32 {
        OWN[0].unsigned_abs()
    }

    fn all_tasks(&self) -> io::Result<Vec<i32>> {
        Ok(self.state.borrow().tasks.keys().copied().collect())
    }

    fn own_tasks(&self) -> io::Result<Vec<i32>> {
        Ok(OWN.into())
    }

    fn wait(&self) {}
}

impl Records for FakeHost {
    fn keep(&self, text: &str) -> io::Result<()> {
        self.change()?;
        self.state.borrow_mut().record = Some(text.into());
        Ok(())
    }

    fn kept(&self) -> io::Result<Option<String>> {
        Ok(self.state.borrow().record.clone())
    }

    fn remove(&self) -> io::Result<()> {
        self.change()?;
        self.state.borrow_mut().record = None;
        Ok(())
    }
}
