//! ACPI tables: how a PC kernel finds its processors, interrupt controller, devices and the way to
//! switch itself off.
//!
//! Source: ACPI specification 6.5. The platform is an ordinary (not a hardware-reduced) one, with
//! KVM's PIC, I/O APIC and PIT: a kernel can then calibrate its local APIC timer where it has no
//! TSC deadline timer.

mod dsdt;
mod fadt;
mod madt;
mod table;
mod tables;

pub(crate) use fadt::SCI;
pub use tables::{AcpiError, START, write};
