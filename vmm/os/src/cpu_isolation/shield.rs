//! Version 1 of control groups: the tasks of the root cpuset are moved to a cpuset of their own, which lacks the
//! isolated host CPUs. This process stays in the root cpuset, so that its executors may use those and its other
//! threads the rest. Groups of others, such as those of containers, stay as they are.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::affinities::Affinities;
use super::cpu_list;
use super::error::IsolationError;
use super::group::{absent_is_done, create_group, remove_group};
use super::host::Host;

/// Name of the cpuset to which the tasks are moved.
const GROUP: &str = "baton.others";
/// How often the tasks of a cpuset are listed until none is new. Each time, only those are left that were
/// created during the pass before.
const PASSES: u32 = 100;

/// The change and what is needed to undo it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shield {
    /// The directory of the root cpuset.
    pub(super) root: PathBuf,
    /// The host CPUs of the root cpuset.
    pub(super) all: Vec<usize>,
    /// Those that are left to the tasks of others.
    pub(super) others: Vec<usize>,
    /// Affinities of the tasks that are moved.
    pub(super) affinities: Affinities,
}

/// What may still run on the isolated host CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remaining {
    /// Tasks that the kernel does not move, such as its own threads of one host CPU.
    pub tasks: usize,
    /// Control groups of others that have tasks, and at least one of the host CPUs.
    pub groups: Vec<PathBuf>,
}

impl fmt::Display for Remaining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tasks {
            0 => write!(
                f,
                "only threads of the kernel that are bound to them remain"
            )?,
            tasks => write!(
                f,
                "{tasks} tasks remain that the kernel does not move, most of them its own threads"
            )?,
        }
        for (group, number) in self.groups.iter().zip(0..) {
            let before = if number == 0 {
                ", and tasks of the cpuset"
            } else {
                ","
            };
            write!(f, "{before} {}", group.display())?;
        }
        Ok(())
    }
}

impl Shield {
    /// Plans to keep others off `cpus`. Nothing is changed yet.
    pub(super) fn plan(
        host: &impl Host,
        root: PathBuf,
        cpus: &[usize],
    ) -> Result<Self, IsolationError> {
        let all = cpus_of(host, &root)?;
        let others = cpu_list::without(&all, cpus);
        if others.is_empty() {
            return Err(IsolationError::NoneLeft(cpus.to_vec()));
        }
        let shield = Self {
            root,
            all,
            others,
            affinities: Affinities::default(),
        };
        match host.has_group(&shield.group()) {
            true => Err(IsolationError::GroupExists(shield.group())),
            false => Ok(shield),
        }
    }

    /// The cpuset of the others.
    fn group(&self) -> PathBuf {
        self.root.join(GROUP)
    }

    /// Makes the change. `keep` is called before each part of it, and writes the record.
    pub(super) fn make(
        &mut self,
        host: &impl Host,
        mut keep: impl FnMut(&Self) -> Result<(), IsolationError>,
    ) -> Result<Remaining, IsolationError> {
        keep(self)?;
        let group = self.group();
        create_group(host, &group)?;
        let mems = self.root.join("cpuset.mems");
        let mems = host
            .read(&mems)
            .map_err(IsolationError::host("reading", &mems))?;
        write(host, &group, "cpuset.cpus", &cpu_list::format(&self.others))?;
        write(host, &group, "cpuset.mems", mems.trim())?;
        let tasks = self.move_away(host, keep)?;
        let groups = self.groups_of_others(host, &self.root, &own_tasks(host)?)?;
        Ok(Remaining { tasks, groups })
    }

    /// Moves the tasks of others away, and returns how many stay because the kernel does not move them.
    fn move_away(
        &mut self,
        host: &impl Host,
        mut keep: impl FnMut(&Self) -> Result<(), IsolationError>,
    ) -> Result<usize, IsolationError> {
        let mut bound = BTreeSet::new();
        for _ in 0..PASSES {
            let mut found = tasks_of(host, &self.root)?;
            // Listed after those of all, so that no thread of this process is missing.
            let own = own_tasks(host)?;
            found.retain(|task| !own.contains(task) && !bound.contains(task));
            if found.is_empty() {
                let may_disturb = |task: &&i32| {
                    let cpus = host.affinity(**task).unwrap_or_default();
                    !cpu_list::without(&cpus, &self.others).is_empty()
                };
                return Ok(bound.iter().filter(may_disturb).count());
            }
            let before = self.affinities.clone();
            for &task in &found {
                self.affinities.note(host, task, &self.all);
            }
            if self.affinities != before {
                keep(self)?;
            }
            for task in found {
                match move_task(host, task, &self.group())? {
                    Moved::Yes => self.affinities.keep_within(host, task, &self.others),
                    Moved::Ended => {}
                    Moved::No => {
                        bound.insert(task);
                    }
                }
            }
        }
        Err(IsolationError::TooManyTasks(self.root.clone()))
    }

    /// Cpusets below `parent` that have tasks of others and isolated host CPUs.
    fn groups_of_others(
        &self,
        host: &impl Host,
        parent: &Path,
        own: &[i32],
    ) -> Result<Vec<PathBuf>, IsolationError> {
        let mut found = Vec::new();
        let groups = host
            .groups(parent)
            .map_err(IsolationError::host("reading", parent))?;
        for group in groups.into_iter().filter(|group| *group != self.group()) {
            // A container that ends meanwhile takes its group away.
            let tasks = tasks_of(host, &group).unwrap_or_default();
            let cpus = cpus_of(host, &group).unwrap_or_default();
            let has_isolated = cpus.iter().any(|cpu| !self.others.contains(cpu));
            if has_isolated && tasks.iter().any(|task| !own.contains(task)) {
                found.push(group.clone());
            }
            found.extend(self.groups_of_others(host, &group, own).unwrap_or_default());
        }
        Ok(found)
    }

    /// Undoes the change, as far as it was made.
    pub(super) fn undo(&self, host: &impl Host) -> Result<(), IsolationError> {
        let group = self.group();
        if host.has_group(&group) {
            self.move_back(host)?;
            remove_group(host, &group)?;
        }
        self.affinities.give_back(host, &self.others, &self.all)
    }

    /// Moves all tasks back to the root cpuset, those that were created meanwhile included.
    fn move_back(&self, host: &impl Host) -> Result<(), IsolationError> {
        let group = self.group();
        let mut stays = BTreeSet::new();
        let mut first_failure = Ok(());
        for _ in 0..PASSES {
            let mut found = absent_is_done(tasks_of(host, &group))?.unwrap_or_default();
            found.retain(|task| !stays.contains(task));
            if found.is_empty() {
                return first_failure;
            }
            for task in found {
                let moved = move_task(host, task, &self.root);
                if !matches!(moved, Ok(Moved::Yes | Moved::Ended)) {
                    stays.insert(task);
                }
                first_failure = first_failure.and(moved.map(drop));
            }
        }
        Err(IsolationError::TooManyTasks(group))
    }
}

/// What came of the move of a task.
enum Moved {
    Yes,
    /// The task has ended.
    Ended,
    /// The kernel does not move this one.
    No,
}

fn move_task(host: &impl Host, task: i32, group: &Path) -> Result<Moved, IsolationError> {
    let path = group.join("tasks");
    let moved = host.write(&path, &task.to_string());
    match moved.as_ref().map_err(io::Error::raw_os_error) {
        Ok(()) => Ok(Moved::Yes),
        Err(Some(error)) if error == Errno::SRCH.raw_os_error() => Ok(Moved::Ended),
        // A thread that the kernel has bound to its host CPU; one whose deadline does not fit elsewhere.
        Err(Some(error))
            if error == Errno::INVAL.raw_os_error() || error == Errno::BUSY.raw_os_error() =>
        {
            Ok(Moved::No)
        }
        Err(_) => moved
            .map(|()| Moved::Yes)
            .map_err(IsolationError::host("moving a task to", &path)),
    }
}

fn own_tasks(host: &impl Host) -> Result<Vec<i32>, IsolationError> {
    let path = Path::new("/proc/self/task");
    host.own_tasks()
        .map_err(IsolationError::host("reading", path))
}

fn write(host: &impl Host, group: &Path, name: &str, text: &str) -> Result<(), IsolationError> {
    let path = group.join(name);
    host.write(&path, text)
        .map_err(IsolationError::host("writing", &path))
}

fn cpus_of(host: &impl Host, group: &Path) -> Result<Vec<usize>, IsolationError> {
    let path = group.join("cpuset.cpus");
    let read = host.read(&path).and_then(|text| {
        let cpus = cpu_list::parse(&text);
        cpus.ok_or_else(|| ErrorKind::InvalidData.into())
    });
    read.map_err(IsolationError::host("reading", &path))
}

fn tasks_of(host: &impl Host, group: &Path) -> Result<Vec<i32>, IsolationError> {
    let path = group.join("tasks");
    let text = host
        .read(&path)
        .map_err(IsolationError::host("reading", &path))?;
    let tasks = text.lines().filter_map(|line| line.parse().ok());
    // A task that this process cannot see, because it is in another PID namespace, is listed as 0, which means
    // the writer where it is written.
    Ok(tasks.filter(|task| *task != 0).collect())
}
