//! How often the periodic timers of a guest's local APICs may expire.
//!
//! KVM keeps a periodic timer going whatever its vCPU does: while the vCPU sleeps, while it waits for its
//! turn, and also if the interrupt is masked. Each expiry interrupts the host CPU on which the vCPU last
//! ran, at the cost of the vCPU that runs there now. KVM bounds only the rate of one timer
//! (`kvm.min_timer_period_us`, 200 us by default, so 5,000 a second), and a guest has a timer for each
//! of up to 254 vCPUs.
//!
//! # The limit
//! An expiry was measured to cost 5 to 12 us where the host is itself a guest and nothing else expires
//! at that moment (two timers of 5,000 a second took 5 to 13 % of their host CPU, 64 of them up to
//! 90 %). So the limit cannot be far above what a kernel needs: that is 1,000 a second on each vCPU, by
//! a Linux with `HZ=1000` that has neither a TSC deadline timer nor high resolution timers. A tenth is
//! added because kernels measure the clock of the timer before they use it. In a guest with more than
//! ten vCPUs, the timers together have the limit of ten vCPUs: half of it in equal shares, so that no
//! vCPU goes without, and half for the first vCPUs that use it.
//!
//! No vCPU notices the expiries of a periodic timer whose interrupt is masked: a vCPU can only read the
//! timer's count. Such a timer is slowed down to `PER_MASKED`, far below the limit, and only the limit
//! itself ends a guest.
//!
//! One-shot and deadline timers need no limit: for each expiry, a vCPU must have run to set the timer, and
//! was charged for that.
//!
//! # How a timer is slowed down
//! Baton writes a longer initial count by `KVM_SET_MSRS` to the register's MSR. KVM handles that like a
//! write by the vCPU itself, which changes only the timer, and accepts it in x2APIC mode only.
//! `KVM_SET_LAPIC`, the other way, replaces all registers: an interrupt that comes after the registers were
//! read would be lost, and KVM does not report whether one came. So Baton ends a guest whose local APICs are
//! in xAPIC mode and whose timers exceed the limit. (Linux, arch/x86/kvm/lapic.c:
//! `kvm_apic_set_state`, `kvm_x2apic_msr_write`.)

mod limit;
mod periodic;
mod rates;

pub(crate) use limit::{TooFast, limit};
pub use periodic::PeriodicTimer;
pub use rates::{TimerRates, most, possible};
