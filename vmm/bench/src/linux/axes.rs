//! The axes of the Linux benchmark: works, loads and policies.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

/// What a guest does; the names are those that the guest's `bench` test takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Threads take a spinlock of the kernel, one for each CPU.
    Spin,
    /// Threads take a mutex of the kernel, one for each CPU.
    Mutex,
    /// Threads take a reader-writer semaphore of the kernel for writing, one for each CPU.
    Rwsem,
    /// Threads take a reader-writer semaphore of the kernel, one for each CPU, mostly for reading.
    RwsemMixed,
    /// Threads take a mutex of the kernel with priority inheritance, one for each CPU.
    Rtmutex,
    /// Threads of one process map, touch and unmap memory, one for each CPU, so that each interrupts all other
    /// CPUs to flush their TLBs.
    Munmap,
    /// Threads send messages to each other (hackbench).
    Messaging,
    /// Threads wait for timers (cyclictest).
    Wake,
    /// Processes compile C files, one for each CPU.
    Compile,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Spin => "spin",
            Self::Mutex => "mutex",
            Self::Rwsem => "rwsem",
            Self::RwsemMixed => "rwsem-mixed",
            Self::Rtmutex => "rtmutex",
            Self::Munmap => "munmap",
            Self::Messaging => "messaging",
            Self::Wake => "wake",
            Self::Compile => "compile",
        })
    }
}

/// vCPUs of the guest for each host CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
pub enum LinuxLoad {
    /// One vCPU.
    #[value(name = "1x")]
    #[serde(rename = "1x")]
    X1,
    /// Two vCPUs.
    #[value(name = "2x")]
    #[serde(rename = "2x")]
    X2,
    /// Four vCPUs.
    #[value(name = "4x")]
    #[serde(rename = "4x")]
    X4,
}

impl LinuxLoad {
    /// The number of vCPUs of the guest on a pool of `host_cpus` host CPUs.
    pub(super) fn vcpus(self, host_cpus: usize) -> usize {
        let each = match self {
            Self::X1 => 1,
            Self::X2 => 2,
            Self::X4 => 4,
        };
        each * host_cpus
    }
}

impl fmt::Display for LinuxLoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::X1 => "1x",
            Self::X2 => "2x",
            Self::X4 => "4x",
        })
    }
}

/// The scheduler, the source of its hints, and the kernels that it schedules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinuxPolicy {
    /// The host kernel schedules a kernel without our patches, as with every other VMM.
    Host,
    /// Baton schedules a kernel without our patches, without hints.
    Baton,
    /// Baton schedules a kernel without our patches, with hints that it infers.
    BatonInferred,
    /// The same, but Baton infers only what it can infer of any guest; measured only if it is named.
    BatonInferredAny,
    /// Baton schedules the patched kernel, which publishes hints.
    BatonPatched,
}

impl LinuxPolicy {
    /// All policies.
    pub(super) const ALL: [Self; 5] = [
        Self::Host,
        Self::Baton,
        Self::BatonInferred,
        Self::BatonInferredAny,
        Self::BatonPatched,
    ];

    /// Whether the policy is measured only if it is named.
    pub(super) fn is_measured_if_named(self) -> bool {
        self == Self::BatonInferredAny
    }

    /// The value of `--sched`.
    pub(super) fn sched(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Baton | Self::BatonInferred | Self::BatonInferredAny | Self::BatonPatched => {
                "baton"
            }
        }
    }

    /// The value of `--hints`.
    pub(super) fn hints(self) -> &'static str {
        match self {
            Self::Host | Self::Baton => "off",
            Self::BatonInferred => "inferred",
            Self::BatonInferredAny => "inferred:any",
            Self::BatonPatched => "page",
        }
    }
}

impl fmt::Display for LinuxPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Host => "host",
            Self::Baton => "baton",
            Self::BatonInferred => "baton-inferred",
            Self::BatonInferredAny => "baton-inferred-any",
            Self::BatonPatched => "baton-patched",
        })
    }
}
