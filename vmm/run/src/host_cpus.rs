//! The host CPUs of a run.

use baton_os::sys;

use crate::error::RunError;

/// The host CPUs of the pool: those in `wanted`, if this process may use them all. If `wanted` is empty, all that
/// this process may use.
///
/// # Errors
/// [`RunError::NoSuchCpu`] if this process may not use one of them.
pub fn of_pool(wanted: &[usize]) -> Result<Vec<usize>, RunError> {
    let available = sys::affinity().map_err(RunError::host("the pool of host CPUs"))?;
    if wanted.is_empty() {
        return Ok(available);
    }
    match wanted.iter().find(|cpu| !available.contains(cpu)) {
        Some(cpu) => Err(RunError::NoSuchCpu {
            cpu: *cpu,
            available: baton_config::units::format_cpus(&available),
        }),
        None => Ok(wanted.to_vec()),
    }
}
