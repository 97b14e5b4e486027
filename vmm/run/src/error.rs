//! Why a run could not be started.

use std::io;
use std::path::PathBuf;

use baton_config::ConfigError;
use baton_host::commanded::ThreadLost;
use baton_host::executor::{ExecutorError, JoinError};
use baton_host::host_sched::HostSchedError;
use baton_machine::GuestError;
use baton_machine::console::ConsoleError;
use baton_machine::kvm::KvmError;
use baton_os::abandon::Abandoned;
use baton_sandbox::SandboxError;
use thiserror::Error;

use crate::cpu_owner::CpusTaken;
use crate::files::TooFewFiles;
use crate::host_memory::NotEnoughMemory;
use crate::isolation::CannotIsolate;
use crate::vm::pool_error::PoolError;

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
    /// The console of a guest could not be set up.
    #[error("guest {guest}: {source}")]
    Console {
        /// The guest's name.
        guest: String,
        /// What went wrong.
        source: ConsoleError,
    },
    /// The console of a guest is the file in which only the summary is to be.
    #[error(
        "guest {guest}: its console {} is standard output, on which a summary as JSON has to be alone: name another \
         file, or leave the console out, which is then standard error",
        path.display()
    )]
    ConsoleIsStdout {
        /// The guest's name.
        guest: String,
        /// Path of the file.
        path: PathBuf,
    },
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
    /// Other programs could not be kept off the host CPUs of the pool.
    #[error(transparent)]
    Isolation(#[from] CannotIsolate),
    /// Too few files may be open.
    #[error(transparent)]
    Files(#[from] TooFewFiles),
    /// The guests' memory does not fit.
    #[error(transparent)]
    Memory(#[from] NotEnoughMemory),
    /// Baton's own scheduler could not be started.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// The process cannot enter the guest's sandbox.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The guest has not joined the pool of another process.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A guest could not join the others again.
    #[error(transparent)]
    Join(JoinError),
    /// A guest could not go on in the place of the one before.
    #[error("guest {guest}: {source}")]
    Replace {
        /// The guest's name.
        guest: String,
        /// Why not.
        source: ThreadLost,
    },
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
