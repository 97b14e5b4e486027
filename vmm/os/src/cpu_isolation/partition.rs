//! Version 2 of control groups: the host CPUs become a partition of one group, to which this process is moved with
//! all of its threads. The kernel takes the host CPUs away from all other groups, and gives them back when the
//! partition ends. Nothing in the groups of others is changed, but it replaces the affinities of tasks.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::affinities::Affinities;
use super::cpu_list;
use super::error::IsolationError;
use super::group::{absent_is_done, create_group, remove_group};
use super::host::Host;

/// Name of the group, in the root group: only there may any kernel since 5.0 have a partition.
const GROUP: &str = "baton.isolated";
/// How often the processes of the group are listed until none is left.
const PASSES: u32 = 100;

/// The change and what is needed to undo it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    /// The directory of the root group.
    pub(super) root: PathBuf,
    /// The host CPUs of the root group.
    pub(super) all: Vec<usize>,
    /// Those that are left to others.
    pub(super) others: Vec<usize>,
    /// Affinities of all tasks.
    pub(super) affinities: Affinities,
    /// The group in which this process was before.
    pub(super) former: PathBuf,
    /// Whether the groups in the root group have the cpuset controller because of this.
    pub(super) enabled: bool,
}

impl Partition {
    /// Plans a partition of `cpus`. Nothing is changed yet.
    pub(super) fn plan(
        host: &impl Host,
        root: PathBuf,
        former: PathBuf,
        cpus: &[usize],
    ) -> Result<Self, IsolationError> {
        let all = root.join("cpuset.cpus.effective");
        let failed = IsolationError::host("reading", &all);
        let all = host.read(&all).map_err(failed)?;
        let all = cpu_list::parse(&all).unwrap_or_default();
        let others = cpu_list::without(&all, cpus);
        if others.is_empty() {
            return Err(IsolationError::NoneLeft(cpus.to_vec()));
        }
        let partition = Self {
            enabled: !controllers_in_groups(host, &root)?.contains("cpuset"),
            affinities: affinities(host, &all)?,
            root,
            former,
            all,
            others,
        };
        match host.has_group(&partition.group()) {
            true => Err(IsolationError::GroupExists(partition.group())),
            false => Ok(partition),
        }
    }

    fn group(&self) -> PathBuf {
        self.root.join(GROUP)
    }

    /// Makes the partition of `cpus`. `keep` is called before, and writes the record.
    pub(super) fn make(
        &self,
        host: &impl Host,
        cpus: &[usize],
        keep: impl FnOnce(&Self) -> Result<(), IsolationError>,
    ) -> Result<(), IsolationError> {
        keep(self)?;
        let group = self.group();
        create_group(host, &group)?;
        if self.enabled {
            write(host, &self.root.join("cgroup.subtree_control"), "+cpuset")?;
        }
        write(host, &group.join("cpuset.cpus"), &cpu_list::format(cpus))?;
        // The process is there first, so that it always has host CPUs.
        let process = host.own_process().to_string();
        write(host, &group.join("cgroup.procs"), &process)?;
        let partition = group.join("cpuset.cpus.partition");
        write(host, &partition, "root")?;
        // A partition that the kernel cannot make is written without an error, and says so.
        let state = host
            .read(&partition)
            .map_err(IsolationError::host("reading", &partition))?;
        match state.trim() {
            "root" => {
                for (task, ..) in self.affinities.iter() {
                    self.affinities.keep_within(host, task, &self.others);
                }
                Ok(())
            }
            state => Err(IsolationError::NoPartition {
                cpus: cpus.to_vec(),
                group,
                state: state.to_owned(),
            }),
        }
    }

    /// Undoes the change, as far as it was made.
    pub(super) fn undo(&self, host: &impl Host) -> Result<(), IsolationError> {
        let group = self.group();
        if host.has_group(&group) {
            // Removing the group ends a partition, too, but the processes should have all host CPUs when they
            // leave. Where this fails, the group may have no cpusets any more.
            let _ = write(host, &group.join("cpuset.cpus.partition"), "member");
            self.move_back(host)?;
            remove_group(host, &group)?;
        }
        if self.enabled && !self.is_used_by_others(host)? {
            let path = self.root.join("cgroup.subtree_control");
            match host.write(&path, "-cpuset") {
                // Groups of others use it further down.
                Err(error) if error.kind() == ErrorKind::ResourceBusy => {}
                done => done.map_err(IsolationError::host("writing", &path))?,
            }
        }
        self.affinities.give_back(host, &self.others, &self.all)
    }

    /// Moves all processes back to where this one was, or to the root group if that group is gone.
    fn move_back(&self, host: &impl Host) -> Result<(), IsolationError> {
        let procs = self.group().join("cgroup.procs");
        let to = match host.has_group(&self.former) {
            true => self.former.join("cgroup.procs"),
            false => self.root.join("cgroup.procs"),
        };
        for _ in 0..PASSES {
            let read = host.read(&procs);
            let read = read.map_err(IsolationError::host("reading", &procs));
            let processes = absent_is_done(read)?.unwrap_or_default();
            // 0 is a process of another PID namespace, and means the writer where it is written.
            let mut processes = processes
                .lines()
                .filter(|process| *process != "0")
                .peekable();
            if processes.peek().is_none() {
                return Ok(());
            }
            for process in processes {
                match host.write(&to, process) {
                    // It has ended.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    moved => moved.map_err(IsolationError::host("moving a process to", &to))?,
                }
            }
        }
        Err(IsolationError::TooManyTasks(self.group()))
    }

    /// Whether a group in the root group has host CPUs or memory nodes of its own.
    fn is_used_by_others(&self, host: &impl Host) -> Result<bool, IsolationError> {
        let groups = host
            .groups(&self.root)
            .map_err(IsolationError::host("reading", &self.root))?;
        let is_set = |path: PathBuf| host.read(&path).is_ok_and(|text| !text.trim().is_empty());
        Ok(groups
            .iter()
            .any(|group| is_set(group.join("cpuset.cpus")) || is_set(group.join("cpuset.mems"))))
    }
}

/// The controllers that the groups in `root` have.
fn controllers_in_groups(host: &impl Host, root: &Path) -> Result<String, IsolationError> {
    let path = root.join("cgroup.subtree_control");
    host.read(&path)
        .map_err(IsolationError::host("reading", &path))
}

/// The affinities of all tasks but those of this process, which may use `all` host CPUs.
fn affinities(host: &impl Host, all: &[usize]) -> Result<Affinities, IsolationError> {
    let path = Path::new("/proc");
    let tasks = host
        .all_tasks()
        .and_then(|tasks| Ok((tasks, host.own_tasks()?)));
    let (tasks, own) = tasks.map_err(IsolationError::host("reading", path))?;
    let mut affinities = Affinities::default();
    for task in tasks.into_iter().filter(|task| !own.contains(task)) {
        affinities.note(host, task, all);
    }
    Ok(affinities)
}

fn write(host: &impl Host, path: &Path, text: &str) -> Result<(), IsolationError> {
    host.write(path, text)
        .map_err(IsolationError::host("writing", path))
}
