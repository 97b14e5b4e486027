//! ACPI tables.

mod dsdt;
mod fadt;
mod madt;
mod tables;

pub use tables::{AcpiError, START, write};
