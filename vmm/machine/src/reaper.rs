//! Takes ended guests apart, so that neither executors nor other guests wait for that.
//!
//! A device's thread may hang in a disk's system call, KVM waits for grace periods when it destroys a
//! virtual machine, and gigabytes take a while to go back to the host. So each guest is taken apart by a
//! thread of its own, which the reaper's thread starts when the last vCPU is gone.
//!
//! These threads run beside guests that go on, and there is no guest left to charge for them. So they rest
//! ([`Pace`]) until the run ends and no guest runs beside them.

mod pace;
mod thread;

pub use pace::{Pace, Paced};
pub use thread::{Reaper, ReaperThread};
