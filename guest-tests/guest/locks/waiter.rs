//! One vCPU's wait for a lock: spinning, hinting, parking.

use core::hint::spin_loop;
use core::marker::PhantomData;

use crate::abi::{DOORBELL_WAIT, HOLDER_UNKNOWN};
use crate::cpu::Cpu;
use crate::lock::Mode;
use crate::{config, hints, idle};

/// Spins between two looks at who is running: about a microsecond, so that a wait behind a short
/// critical section on a running vCPU publishes nothing.
const LOOK: u32 = 32;
/// The same after rings for the same holder that changed nothing (the host may have a reason, and
/// an exit costs more than all the spins between).
const LOOK_MAX: u32 = 4096;

pub struct Waiter<'a, M: Mode> {
    cpu: &'a Cpu,
    lock: u64,
    spins: u32,
    /// Spins after which to look again.
    next_look: u32,
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
            next_look: LOOK,
            interval: LOOK,
            record: None,
            mode: PhantomData,
        }
    }

    /// One turn of the wait. `still` tells whether the wait goes on; `ahead` names the vCPU that
    /// must run for it to end: the first in the order of the queue that does not run, else the
    /// holder.
    #[inline(always)]
    pub fn turn(&mut self, still: impl Fn() -> bool, ahead: impl Fn() -> Option<u32>) {
        self.spin(&still, ahead);
        if M::PARK && self.spins >= config::get().spin {
            self.park(still);
        }
    }

    /// The same without ever parking.
    #[inline(always)]
    pub fn spin(&mut self, still: impl Fn() -> bool, ahead: impl Fn() -> Option<u32>) {
        spin_loop();
        if M::HINTS || M::PARK {
            self.spins += 1;
        }
        if M::HINTS && self.spins >= self.next_look {
            self.look(still, ahead);
            self.next_look = self.spins + self.interval;
        }
    }

    #[inline(never)]
    fn look(&mut self, still: impl Fn() -> bool, ahead: impl Fn() -> Option<u32>) {
        let Some(holder) = ahead() else {
            // Between two holders. Publish all the same that this vCPU only spins.
            return self.publish(HOLDER_UNKNOWN, 0);
        };
        let releases = hints::releases(holder);
        if ahead() != Some(holder) {
            // It may have let go between the two looks: the count may be the one with which it queues
            // anew, behind this vCPU, and the host could not tell that this word is stale.
            return self.publish(HOLDER_UNKNOWN, 0);
        }
        self.publish(holder, releases);
        if hints::running(holder) {
            self.interval = LOOK;
            return;
        }
        // The record is out; ring only if it is still true.
        let unchanged = hints::proxied()
            && still()
            && ahead() == Some(holder)
            && hints::releases(holder) == releases
            && !hints::running(holder);
        if unchanged {
            self.cpu.stats.wait_rings.add(1);
            hints::ring(DOORBELL_WAIT, 0);
            self.interval = (self.interval * 2).min(LOOK_MAX);
        }
    }

    fn publish(&mut self, holder: u32, releases: u32) {
        if self.record != Some((holder, releases)) {
            hints::waiting(self.cpu, self.lock, holder, releases);
            self.record = Some((holder, releases));
            self.interval = LOOK;
        }
    }

    #[inline(never)]
    fn park(&mut self, still: impl Fn() -> bool) {
        self.done();
        idle::sleep_while(self.cpu, still, 0);
        self.spins = 0;
        self.next_look = LOOK;
    }

    /// The wait is over: takes the record back.
    #[inline(always)]
    pub fn done(&mut self) {
        if M::HINTS && self.record.take().is_some() {
            hints::not_waiting(self.cpu);
        }
    }
}
