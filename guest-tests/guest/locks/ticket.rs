//! Ticket lock: strictly first come, first served. A waiter that does not run stops all behind it,
//! which makes it the worst case for a hypervisor.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::{AtomicU32, AtomicU64};

use crate::cpu::{Cpu, MAX_CPUS};
use crate::lock::{Lock, Mode};
use crate::locks::waiter::Waiter;
use crate::{hints, idle, preempt};

#[repr(align(64))]
pub struct Ticket {
    next: AtomicU32,
    serving: AtomicU32,
    /// Who drew ticket t stands in slot t modulo the number of slots, which is no smaller than the
    /// number of vCPUs, so that no two live tickets share one.
    slots: [Slot; MAX_CPUS],
}

/// The ticket (high half) and the index plus one of the vCPU that drew it.
struct Slot(AtomicU64);

impl Slot {
    fn set(&self, ticket: u32, vcpu: u32) {
        self.0
            .store(u64::from(ticket) << 32 | u64::from(vcpu + 1), Release);
    }

    /// Who drew this ticket; `None` if it is not written yet.
    fn get(&self, ticket: u32) -> Option<u32> {
        let value = self.0.load(SeqCst);
        ((value >> 32) as u32 == ticket)
            .then_some(value as u32)?
            .checked_sub(1)
    }
}

impl Ticket {
    pub const fn new() -> Self {
        Self {
            next: AtomicU32::new(0),
            serving: AtomicU32::new(0),
            slots: [const { Slot(AtomicU64::new(0)) }; MAX_CPUS],
        }
    }

    fn slot(&self, ticket: u32) -> &Slot {
        &self.slots[ticket as usize % MAX_CPUS]
    }

    #[cold]
    fn wait<M: Mode>(&self, cpu: &Cpu, ticket: u32) {
        let mut waiter = Waiter::<M>::new(cpu, self.name());
        let still = || self.serving.load(SeqCst) != ticket;
        while self.serving.load(Acquire) != ticket {
            waiter.turn(still, || self.ahead(ticket));
        }
        waiter.done();
    }

    /// The first of those before `ticket`, the holder first, that does not run; if all do, the
    /// holder. One that went idle is not meant: the releaser wakes it. Naming one in the middle of
    /// the queue lets two host CPUs work at the queue: the vCPU that is next is brought in while
    /// the holder still runs.
    fn ahead(&self, ticket: u32) -> Option<u32> {
        let serving = self.serving.load(Relaxed);
        let before = ticket.wrapping_sub(serving).min(MAX_CPUS as u32);
        let holder = self.slot(serving).get(serving);
        (0..before)
            .map_while(|at| {
                let earlier = serving.wrapping_add(at);
                self.slot(earlier).get(earlier)
            })
            .find(|&vcpu| !hints::running(vcpu) && !idle::asleep(vcpu))
            .or(holder.filter(|_| before > 0))
    }

    /// Who waits with this ticket, as far as it is known.
    fn waiter(&self, ticket: u32) -> Option<u32> {
        (self.next.load(Relaxed) != ticket).then(|| self.slot(ticket).get(ticket))?
    }

    fn name(&self) -> u64 {
        &raw const *self as u64
    }
}

impl Lock for Ticket {
    #[inline(always)]
    fn lock<M: Mode>(&self, cpu: &Cpu) {
        preempt::disable(cpu);
        hints::takes::<M>(cpu);
        let ticket = self.next.fetch_add(1, Relaxed);
        if M::HINTS || M::PARK {
            self.slot(ticket).set(ticket, cpu.index());
        }
        if self.serving.load(Acquire) != ticket {
            self.wait::<M>(cpu, ticket);
        }
    }

    #[inline(always)]
    fn unlock<M: Mode>(&self, cpu: &Cpu) {
        let next = self.serving.load(Relaxed).wrapping_add(1);
        if M::PARK {
            // Write, then look for a sleeper; it writes (its slot, its `asleep`), then looks.
            self.serving.swap(next, SeqCst);
            if let Some(vcpu) = self.waiter(next) {
                idle::wake(vcpu);
            }
        } else {
            self.serving.store(next, Release);
        }
        hints::released::<M>(cpu, self.name(), || self.waiter(next));
        preempt::enable(cpu);
    }
}
