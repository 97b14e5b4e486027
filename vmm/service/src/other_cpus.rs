//! The host CPUs that are not the pool's.

use baton_os::sys;

/// CPU numbers that are offered to the kernel for threads beside the pool. It leaves out those that the host does not
/// have.
const MOST_CPUS: usize = 8192;

/// The host CPUs that are not the pool's `cpus`, for its threads that are no executors. `None`: the host has no others.
pub(crate) fn others(cpus: &[usize]) -> Option<Vec<usize>> {
    // Those that this process may use are often those of the pool, so all of the host are offered.
    let others: Vec<usize> = (0..MOST_CPUS).filter(|cpu| !cpus.contains(cpu)).collect();
    let before = sys::affinity().unwrap_or_default();
    let found = sys::set_affinity(&others).and_then(|()| sys::affinity());
    let _ = sys::set_affinity(&before);
    found.ok().filter(|found| !found.is_empty())
}
