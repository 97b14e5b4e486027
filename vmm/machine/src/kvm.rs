//! Opening `/dev/kvm`, with errors that describe what to do.

use std::time::Duration;

use kvm_ioctls::{Cap, Kvm};
use thiserror::Error;

/// The KVM API version that has not changed since Linux 2.6.22.
const API_VERSION: i32 = 12;

/// The capabilities that Baton needs, with their names for messages.
pub const REQUIRED: [(Cap, &str); 6] = [
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
];

/// KVM cannot be used.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum KvmError {
    /// There is no `/dev/kvm`.
    #[error(
        "/dev/kvm does not exist: load the module kvm_intel or kvm_amd, and enable virtualization \
         in the firmware (or nested virtualization, if this is a virtual machine)"
    )]
    Missing,
    /// This user may not open `/dev/kvm`.
    #[error(
        "/dev/kvm may not be opened by this user: add the user to the group that owns it \
         (usually: sudo usermod -aG kvm $USER, then log in again)"
    )]
    NotPermitted,
    /// `/dev/kvm` could not be opened for another reason.
    #[error("/dev/kvm cannot be opened: {0}")]
    Open(kvm_ioctls::Error),
    /// KVM has another version of the API.
    #[error("/dev/kvm has API version {0}, and Baton needs version 12")]
    Version(i32),
    /// KVM lacks this capability, because it is too old.
    #[error("this host's KVM lacks {0}: use Linux 4.12 or newer")]
    Lacks(&'static str),
}

/// Opens `/dev/kvm` and checks that KVM has the capabilities that Baton needs.
///
/// # Errors
/// What is missing, and how to get it.
pub fn open() -> Result<Kvm, KvmError> {
    let kvm = Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENXIO | libc::ENODEV => KvmError::Missing,
        libc::EACCES | libc::EPERM => KvmError::NotPermitted,
        _ => KvmError::Open(error),
    })?;
    match kvm.get_api_version() {
        API_VERSION => {}
        other => return Err(KvmError::Version(other)),
    }
    match REQUIRED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        Some((_, name)) => Err(KvmError::Lacks(name)),
        None => Ok(kvm),
    }
}

/// The file in which the shortest period of a local APIC's timer is set.
pub const TIMER_PERIOD: &str = "/sys/module/kvm/parameters/min_timer_period_us";

/// The shortest period that this host's KVM gives a periodic timer of a local APIC; zero if KVM does not
/// report it.
#[must_use]
pub fn shortest_timer_period() -> Duration {
    let micros = std::fs::read_to_string(TIMER_PERIOD)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    Duration::from_micros(micros.unwrap_or(0))
}
