//! Values of flags that several commands have.

use clap::ValueEnum;

use crate::units::{self, UnitError};

/// `on` or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// The option is on.
    On,
    /// The option is off.
    Off,
}

/// A list of host CPUs as one value. clap would read a bare `Vec` as an option that is repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuList(pub Vec<usize>);

/// Reads a list of host CPUs, for every command that has one.
///
/// # Errors
/// [`UnitError::Cpus`] if the text is not such a list.
pub fn parse_cpu_list(text: &str) -> Result<CpuList, UnitError> {
    units::parse_cpus(text).map(CpuList)
}
