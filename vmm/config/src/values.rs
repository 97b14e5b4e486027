//! Values of flags that several commands take.

use clap::ValueEnum;

use crate::units::{self, UnitError};

/// `on` or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Do so.
    On,
    /// Do not.
    Off,
}

/// A list of host CPUs as one value: clap takes a bare `Vec` for repetition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuList(pub Vec<usize>);

/// Reads a list of host CPUs, for every command that takes one.
///
/// # Errors
/// [`UnitError::Cpus`] if it is none.
pub fn parse_cpu_list(text: &str) -> Result<CpuList, UnitError> {
    units::parse_cpus(text).map(CpuList)
}
