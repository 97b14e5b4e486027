//! Why a run could not be started.

use std::io;

use baton_config::ConfigError;
use baton_host::executor::ExecutorError;
use baton_host::host_sched::HostSchedError;
use baton_machine::GuestError;
use baton_machine::kvm::KvmError;
use baton_os::abandon::Abandoned;
use thiserror::Error;

use crate::cpu_owner::CpusTaken;
use crate::files::TooFewFiles;
use crate::host_memory::NotEnoughMemory;

/// A run could not be started.
#[derive(Debug, Error)]
pub enum RunError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// KVM could not be used.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// A guest could not be created.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The host's scheduler could not be used.
    #[error(transparent)]
    HostSched(#[from] HostSchedError),
    /// The user named a host CPU that this process may not use.
    #[error("host CPU {cpu} cannot be used: this process may use {available} (see --host-cpus)")]
    NoSuchCpu {
        /// The CPU.
        cpu: usize,
        /// The host CPUs that this process may use, as a list.
        available: String,
    },
    /// Another process owns a host CPU of the pool.
    #[error(transparent)]
    CpusTaken(#[from] CpusTaken),
    /// Too few files may be open.
    #[error(transparent)]
    Files(#[from] TooFewFiles),
    /// The guests' memory does not fit.
    #[error(transparent)]
    Memory(#[from] NotEnoughMemory),
    /// Baton's own scheduler could not be started.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// A signal asked for the end before the guests ran.
    #[error(transparent)]
    Abandoned(#[from] Abandoned),
    /// The host refused a resource.
    #[error("cannot set up {what}: {source}")]
    Host {
        /// The resource.
        what: &'static str,
        /// The error of the host.
        source: io::Error,
    },
}

impl RunError {
    /// The host refused `what`.
    pub(crate) fn host(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Host { what, source }
    }
}
