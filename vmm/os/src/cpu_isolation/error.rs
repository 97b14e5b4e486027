//! Why host CPUs could not be isolated, or not given back.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::cpu_list;
use crate::cpu_owner::Owner;

/// Host CPUs could not be isolated, or an isolation could not be undone.
#[derive(Debug, Error)]
pub enum IsolationError {
    /// No host CPU would be left for other programs.
    #[error(
        "host CPUs {} are all that this host has, so isolating them would leave none to other programs: name \
         fewer with --host-cpus, or leave --isolate out",
        cpu_list::format(.0)
    )]
    NoneLeft(Vec<usize>),
    /// Another process isolates host CPUs.
    #[error(
        "{} isolates host CPUs already, and only one process of a host can: leave --isolate out, or wait until it \
         has ended",
        .0.as_ref().map_or_else(|| "another process".to_owned(), Owner::to_string)
    )]
    Taken(Option<Owner>),
    /// A control group with the name of Baton's exists, and no record of this place describes it.
    #[error(
        "the control group {} exists already: another run isolates host CPUs with another directory of locks, or \
         was killed; if none runs, remove it as docs/host-cpus.md describes",
        .0.display()
    )]
    GroupExists(PathBuf),
    /// This process sees no control groups that have cpusets.
    #[error(
        "no control groups with the cpuset controller are mounted, so host CPUs cannot be isolated: mount them, or \
         leave --isolate out and keep other programs away with isolcpus= at boot"
    )]
    NoCpusets,
    /// The cpusets of version 1 share their groups with other controllers.
    #[error(
        "the cpusets at {} are mounted together with the controller {controller}, which a move between them would \
         affect: mount cpuset alone, or leave --isolate out",
        mount.display()
    )]
    SharedMount {
        /// Where they are mounted.
        mount: PathBuf,
        /// The first of the other controllers.
        controller: String,
    },
    /// The kernel did not make a partition.
    #[error(
        "the kernel made no partition of host CPUs {} at {}, and reports '{state}': other control groups may \
         claim them in cpuset.cpus or as a partition; choose others with --host-cpus, or leave --isolate out",
        cpu_list::format(cpus),
        group.display()
    )]
    NoPartition {
        /// The host CPUs.
        cpus: Vec<usize>,
        /// The control group.
        group: PathBuf,
        /// What the kernel wrote to `cpuset.cpus.partition`.
        state: String,
    },
    /// The tasks of other programs multiplied faster than they could be moved.
    #[error(
        "new tasks appeared in {} as fast as they were moved away: try again when the host starts fewer programs",
        .0.display()
    )]
    TooManyTasks(PathBuf),
    /// The record of an isolation cannot be understood.
    #[error(
        "the file {file} in the directory of CPU locks does not describe an isolation that this version could \
         undo: see docs/host-cpus.md for the way by hand, and remove the file then"
    )]
    BadRecord {
        /// The file.
        file: &'static str,
    },
    /// The record of an isolation cannot be kept.
    #[error(
        "the record of the isolation cannot be kept in the directory of CPU locks: {0}; --isolate needs one to \
         which this user may write"
    )]
    Record(io::Error),
    /// The host refused something.
    #[error(
        "host CPUs cannot be isolated or given back, because {action} {} failed: {source}; --isolate needs root, and \
         control groups that may be changed (see docs/host-cpus.md)",
        path.display()
    )]
    Host {
        /// What was done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// The host's reason.
        source: io::Error,
    },
}

impl IsolationError {
    /// `action` with `path` failed.
    pub(super) fn host(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Host {
            action,
            path: path.to_owned(),
            source,
        }
    }
}
