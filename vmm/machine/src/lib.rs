//! The virtual machine: memory, boot, vCPUs and the few devices that guests see.

pub mod acpi;
pub mod apic_timer;
pub mod boot;
pub mod clock;
pub mod console;
pub mod cpuid;
pub mod devices;
pub mod events;
pub mod guest;
pub mod guest_stopped;
pub mod hints;
pub mod kvm;
mod layout;
pub mod loader;
pub mod memory;
pub mod ports;
pub mod power;
mod printable;
pub mod reaper;
mod record;
pub mod reset;
pub mod serial;
pub mod steal;
mod terminal;
pub mod testdev;
pub mod vcpu;

pub use guest::{Guest, GuestEnd, GuestError};
pub use record::GuestRecord;
pub use vcpu::{Doorbell, Exit, ExitCounts, ImmediateExit, Vcpu};
