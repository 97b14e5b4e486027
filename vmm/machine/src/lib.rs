//! The virtual machine: memory, boot, vCPUs and the few devices that guests see.

pub mod acpi;
pub mod apic_timer;
pub mod boot;
pub mod clock;
pub mod console;
pub mod cpuid;
pub mod devices;
mod doorbell;
mod firmware_state;
pub mod guest;
pub mod guest_stopped;
pub mod hints;
mod i8042;
pub mod inferred;
pub mod kernel_image;
pub mod kvm;
mod layout;
pub mod loader;
pub mod memory;
mod ports;
pub mod power;
pub mod reaper;
pub mod serial;
pub mod stdin;
pub mod steal;
pub mod testdev;
pub mod vcpu;

pub use doorbell::Doorbell;
pub use guest::{Guest, GuestEnd, GuestError, GuestRecord, HintsInForce};
pub use vcpu::{Exit, ExitCounts, ImmediateExit, Vcpu};
