//! The files of a run: the configuration of its guests, their kernel and their disks.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::attack::{Attack, KERNEL, disk};
use crate::error::BenchError;
use crate::scratch_dir::ScratchDir;

/// Length of a disk in bytes; its file is one hole.
const DISK: u64 = 16 << 20;

/// Writes the files of a run of `attack` to `scratch`. Returns the path of the configuration, whose text is `guests`.
///
/// # Errors
/// If a file cannot be written.
pub(super) fn prepare(
    scratch: &ScratchDir,
    attack: Attack,
    guests: &str,
) -> Result<PathBuf, BenchError> {
    for path in (0..attack.disks()).map(|number| scratch.join(disk(number))) {
        let sparse = |path: &Path| File::create(path)?.set_len(DISK);
        sparse(&path).map_err(BenchError::write(&path))?;
    }
    scratch.write(KERNEL, guest_tests::GUEST_ELF)?;
    Ok(scratch.write("host.toml", guests.as_bytes())?)
}
