//! The check of a run's configuration.

use baton_config::RunConfig;

use super::room::{NotEnoughMemory, Room};

/// Checks the memory of all guests of `config`. If not all of it is free now, prints a warning on standard error.
///
/// # Errors
/// If there can never be enough, and the user does not overcommit.
pub fn check(config: &RunConfig) -> Result<(), NotEnoughMemory> {
    if config.overcommit_memory {
        return Ok(());
    }
    let sizes = config.guests.iter().map(|guest| guest.memory);
    let wanted = sizes.fold(0, u64::saturating_add);
    if let Some(warning) = Room::of_this_process().check(wanted)? {
        baton_os::say!("baton: {warning}");
    }
    Ok(())
}
