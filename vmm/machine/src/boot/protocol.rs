//! Handing the machine over to a kernel, by the protocol of its entry.

use baton_config::MAX_CMDLINE;
use linux_loader::cmdline::Cmdline;
use linux_loader::loader::load_cmdline;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::addresses::CMDLINE;
use super::error::BootError;
use super::handover::Handover;
use super::{boot_params, pvh};
use crate::loader::Entry;

/// Writes the command line, and the structure of the protocol of `entry` for the rest: `boot_params`, or
/// PVH's start info.
///
/// # Errors
/// If memory is too small or the command line is not printable ASCII or too long for the kernel.
pub fn hand_over(
    memory: &GuestMemoryMmap,
    memory_size: u64,
    cmdline: &str,
    entry: Entry,
    handover: Handover,
) -> Result<(), BootError> {
    let cmdline = cmdline.trim();
    write_cmdline(memory, cmdline, handover)?;
    match entry {
        Entry::Long(_) => boot_params::write_boot_params(memory, memory_size, cmdline, handover),
        Entry::Pvh(_) => pvh::write_start_info(memory, memory_size, handover),
    }
}

fn write_cmdline(
    memory: &GuestMemoryMmap,
    cmdline: &str,
    handover: Handover,
) -> Result<(), BootError> {
    if let Some(header) = handover.header
        && cmdline.len() as u64 > u64::from(header.cmdline_size)
    {
        return Err(BootError::Cmdline(format!(
            "it has {} bytes, and this kernel takes {}",
            cmdline.len(),
            { header.cmdline_size }
        )));
    }
    let mut line = Cmdline::new(MAX_CMDLINE + 1).map_err(BootError::cmdline)?;
    if !cmdline.is_empty() {
        line.insert_str(cmdline).map_err(BootError::cmdline)?;
    }
    load_cmdline(memory, GuestAddress(CMDLINE), &line).map_err(BootError::cmdline)
}
