//! Checks of the guests of other processes that no executor makes, because none of their vCPUs stops.

use baton_os::sys;

use super::foreign_table::ForeignWays;
use super::pool::Pool;

/// Charges what the processes of guests use beside their vCPUs, and ends guests whose threads compute though they are
/// to sleep. To be called about once a second.
pub(super) fn check(pool: &Pool) {
    for ways in pool.foreign.all() {
        check_guest(pool, &ways);
    }
}

fn check_guest(pool: &Pool, ways: &ForeignWays) {
    ways.sleeps.iter().for_each(|sleep| sleep.check_asleep());
    let rest = ways.guest.take_rest(sys::monotonic_ns());
    pool.charge_rest(ways.guest.record(), 0, rest);
}
