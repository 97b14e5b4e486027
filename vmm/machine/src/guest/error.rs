//! Why a guest could not be created.

use std::io;

use thiserror::Error;

use crate::acpi::AcpiError;
use crate::boot::BootError;
use crate::devices::DeviceError;
use crate::kernel_image::SymbolsError;
use crate::loader::{InitrdError, LoadError};
use crate::memory::MemoryError;

/// A guest could not be created.
#[derive(Debug, Error)]
#[error("guest {guest}: {kind}")]
pub struct GuestError {
    /// The guest's name.
    pub guest: String,
    /// What went wrong.
    #[source]
    pub kind: GuestErrorKind,
}

/// What went wrong when a guest was created.
#[derive(Debug, Error)]
pub enum GuestErrorKind {
    /// A KVM call failed.
    #[error("KVM refused {what}: {source}")]
    Kvm {
        /// What was requested.
        what: &'static str,
        /// KVM's error.
        source: kvm_ioctls::Error,
    },
    /// The guest has more vCPUs than KVM allows.
    #[error("{cpus} vCPUs are more than the {max} that this host's KVM takes")]
    TooManyVcpus {
        /// vCPUs of the guest.
        cpus: usize,
        /// Most vCPUs that KVM allows.
        max: usize,
    },
    /// The guest's memory could not be reserved.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The kernel could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The symbols of the kernel could not be used.
    #[error(transparent)]
    Symbols(#[from] SymbolsError),
    /// The boot structures could not be written.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The RAM disk could not be loaded.
    #[error(transparent)]
    Initrd(#[from] InitrdError),
    /// The ACPI tables could not be written.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// A device could not be set up.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The host refused an event or a mapping.
    #[error("cannot set up its devices: {0}")]
    Host(io::Error),
}

/// Makes an error of KVM's answer to a request for `what`.
pub(super) fn kvm_refused(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> GuestErrorKind {
    move |source| GuestErrorKind::Kvm { what, source }
}
