//! One vCPU's wait for a lock: it spins, publishes hints, and goes idle.

use core::hint::spin_loop;
use core::marker::PhantomData;

use crate::abi::{DOORBELL_WAIT, HOLDER_UNKNOWN};
use crate::cpu::Cpu;
use crate::lock::Mode;
use crate::{config, hints, idle};

/// Spins between two checks which vCPUs run: about a microsecond, so that a wait for a short critical
/// section of a running vCPU publishes nothing.
const CHECK_INTERVAL: u32 = 32;
/// The longest such interval, after rings for the same holder that changed nothing. (The host may have a
/// reason, and an exit costs more than all the spins between.)
const CHECK_INTERVAL_MAX: u32 = 4096;

/// A vCPU's wait for one lock.
pub struct Waiter<'a, M: Mode> {
    cpu: &'a Cpu,
    lock: u64,
    spins: u32,
    /// Spins after which the next check is due.
    next_check: u32,
    interval: u32,
    /// Holder and its release count, as last published.
    record: Option<(u32, u32)>,
    mode: PhantomData<M>,
}

impl<'a, M: Mode> Waiter<'a, M> {
    /// `lock` names the lock to the host.
    pub fn new(cpu: &'a Cpu, lock: u64) -> Self {
        Self {
            cpu,
            lock,
            spins: 0,
            next_check: CHECK_INTERVAL,
            interval: CHECK_INTERVAL,
            record: None,
            mode: PhantomData,
        }
    }

    /// One iteration of the wait. `still` returns whether the wait goes on. `ahead` returns the vCPU that
    /// must run before it can end: the first in the order of the queue that does not run, else the
    /// holder.
    #[inline(always)]
    pub fn spin_or_park(&mut self, still: impl Fn() -> bool, ahead: impl Fn() -> Option<u32>) {
        self.spin(&still, ahead);
        if M::PARK && self.spins >= config::get().spin {
            self.park(still);
        }
    }

    /// As [`Self::spin_or_park`], but never goes idle.
    #[inline(always)]
    pub fn spin(&mut self, still: impl Fn() -> bool, ahead: impl Fn() -> Option<u32>) {
        spin_loop();
        if M::HINTS || M::PARK {
            self.spins += 1;
        }
        if M::HINTS && self.spins >= self.next_check {
            self.publish_wait(still, ahead);
            self.next_check = self.spins + self.interval;
        }
    }

    /// Publishes for which vCPU this one waits, and rings if that vCPU does not run.
    #[inline(never)]
    fn publish_wait(&mut self, still: impl Fn() -> bool, ahead: impl Fn() -> Option<u32>) {
        let Some(holder) = ahead() else {
            // Between two holders. Publish all the same that this vCPU only spins.
            return self.publish(HOLDER_UNKNOWN, 0);
        };
        let releases = hints::releases(holder);
        if ahead() != Some(holder) {
            // The holder may have released the lock between the two calls, and the count may be the one
            // with which it queues again, behind this vCPU. The host could not detect that the record
            // is stale.
            return self.publish(HOLDER_UNKNOWN, 0);
        }
        self.publish(holder, releases);
        if hints::running(holder) {
            self.interval = CHECK_INTERVAL;
            return;
        }
        // The record is published; ring only if it is still true.
        let unchanged = hints::host_proxies()
            && still()
            && ahead() == Some(holder)
            && hints::releases(holder) == releases
            && !hints::running(holder);
        if unchanged {
            self.cpu.stats.wait_rings.add(1);
            hints::ring(DOORBELL_WAIT, 0);
            self.interval = (self.interval * 2).min(CHECK_INTERVAL_MAX);
        }
    }

    fn publish(&mut self, holder: u32, releases: u32) {
        if self.record != Some((holder, releases)) {
            hints::waiting(self.cpu, self.lock, holder, releases);
            self.record = Some((holder, releases));
            self.interval = CHECK_INTERVAL;
        }
    }

    #[inline(never)]
    fn park(&mut self, still: impl Fn() -> bool) {
        self.done();
        idle::sleep_while(self.cpu, still, 0);
        self.spins = 0;
        self.next_check = CHECK_INTERVAL;
    }

    /// Ends the wait and withdraws the record.
    #[inline(always)]
    pub fn done(&mut self) {
        if M::HINTS && self.record.take().is_some() {
            hints::not_waiting(self.cpu);
        }
    }
}
