//! The flags of `baton bench linux`.

use std::path::PathBuf;

use baton_config::values::{CpuList, parse_cpu_list};
use clap::Args;

use super::axes::{LinuxLoad, LinuxPolicy, Work};
use super::kernels::NamedKernel;

/// Flags of `baton bench linux`.
#[derive(Debug, Args)]
pub struct LinuxArgs {
    /// Linux kernel without our patches; the same as --kernel stock=FILE
    #[arg(long, value_name = "FILE")]
    pub stock: Option<PathBuf>,
    /// Linux kernel without our patches, and its name in the results (repeat for more kernels)
    #[arg(long = "kernel", value_name = "NAME=FILE")]
    pub kernels: Vec<NamedKernel>,
    /// Linux kernel with our patches, for the policy baton-patched
    #[arg(long, value_name = "FILE")]
    pub patched: Option<PathBuf>,
    /// RAM disk whose init does the works that baton.works= on the kernel command line names
    #[arg(long, value_name = "FILE")]
    pub initrd: PathBuf,
    /// Works to measure
    #[arg(
        long,
        value_name = "WORK,..",
        value_delimiter = ',',
        default_value = "spin,mutex,messaging"
    )]
    pub works: Vec<Work>,
    /// Loads to measure, in vCPUs for each host CPU
    #[arg(
        long,
        value_name = "LOAD,..",
        value_delimiter = ',',
        default_value = "1x,2x,4x"
    )]
    pub loads: Vec<LinuxLoad>,
    /// Policies to measure [default: all for which there is a kernel, but baton-inferred-any]
    #[arg(long, value_name = "POLICY,..", value_delimiter = ',')]
    pub policies: Vec<LinuxPolicy>,
    /// More words for the kernel command line of every guest
    #[arg(long, value_name = "WORDS", default_value = "")]
    pub cmdline: String,
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
    /// State in the JSON that the clock of this host counts instructions, as in an emulated host
    #[arg(long)]
    pub virtual_time: bool,
    /// Write the results as JSON to this file, or - for standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}
