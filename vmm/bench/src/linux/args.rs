//! Flags of `baton bench linux`.

use std::fmt;
use std::path::PathBuf;

use baton_config::values::{CpuList, parse_cpu_list};
use clap::{Args, ValueEnum};
use serde::Serialize;

/// Flags of `baton bench linux`.
#[derive(Debug, Args)]
pub struct LinuxArgs {
    /// Linux kernel without our patches
    #[arg(long, value_name = "FILE")]
    pub stock: PathBuf,
    /// Linux kernel with our patches
    #[arg(long, value_name = "FILE")]
    pub patched: PathBuf,
    /// RAM disk whose init does what baton.works= on the command line says
    #[arg(long, value_name = "FILE")]
    pub initrd: PathBuf,
    /// Works to measure
    #[arg(
        long,
        value_name = "WORK,..",
        value_delimiter = ',',
        default_value = "spin,mutex,messaging"
    )]
    pub works: Vec<String>,
    /// Loads to measure, in vCPUs for each host CPU
    #[arg(
        long,
        value_name = "LOAD,..",
        value_delimiter = ',',
        default_value = "1x,2x,4x"
    )]
    pub loads: Vec<Load>,
    /// Policies to measure
    #[arg(
        long,
        value_name = "POLICY,..",
        value_delimiter = ',',
        default_value = "host,baton,baton-patched"
    )]
    pub policies: Vec<Policy>,
    /// Runs of each work, load and policy
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..=1000)
    )]
    pub runs: u32,
    /// Seconds for each work that has no end of its own
    #[arg(
        long,
        value_name = "N",
        default_value_t = 2,
        value_parser = clap::value_parser!(u32).range(1..=3600)
    )]
    pub seconds: u32,
    /// Host CPUs to use, such as 0-3 or 0,2 [default: all that this process may use]
    #[arg(long, value_name = "CPUS", value_parser = parse_cpu_list)]
    pub host_cpus: Option<CpuList>,
    /// Write the results as JSON to this file, or - for standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// vCPUs of the guest for each host CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
pub enum Load {
    /// One.
    #[value(name = "1x")]
    #[serde(rename = "1x")]
    X1,
    /// Two.
    #[value(name = "2x")]
    #[serde(rename = "2x")]
    X2,
    /// Four.
    #[value(name = "4x")]
    #[serde(rename = "4x")]
    X4,
}

impl Load {
    /// The guest's vCPUs on `host_cpus` host CPUs.
    pub(super) fn vcpus(self, host_cpus: usize) -> usize {
        let each = match self {
            Self::X1 => 1,
            Self::X2 => 2,
            Self::X4 => 4,
        };
        each * host_cpus
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::X1 => "1x",
            Self::X2 => "2x",
            Self::X4 => "4x",
        })
    }
}

/// Who schedules which kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// The host kernel schedules a stock kernel, as with every other VMM.
    Host,
    /// Baton schedules a stock kernel.
    Baton,
    /// Baton schedules a patched kernel.
    BatonPatched,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Host => "host",
            Self::Baton => "baton",
            Self::BatonPatched => "baton-patched",
        })
    }
}
