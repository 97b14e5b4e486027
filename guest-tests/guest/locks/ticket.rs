//! Ticket lock: strictly first come, first served. A waiter that does not run stops all waiters behind
//! it, so this lock is the worst case for a hypervisor.

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
    /// The vCPU with ticket t is recorded at t modulo [`MAX_CPUS`]. There are never more live tickets
    /// than vCPUs, so no two of them share an entry.
    drawers: [Drawer; MAX_CPUS],
}

/// The ticket (high half) and the index plus one of the vCPU that drew it.
struct Drawer(AtomicU64);

impl Drawer {
    fn set(&self, ticket: u32, vcpu: u32) {
        self.0
            .store(u64::from(ticket) << 32 | u64::from(vcpu + 1), Release);
    }

    /// The vCPU that drew this ticket; `None` if it has not recorded that yet.
    fn get(&self, ticket: u32) -> Option<u32> {
        let value = self.0.load(SeqCst);
        ((value >> 32) as u32 == ticket)
            .then_some(value as u32)?
            .checked_sub(1)
    }
}

impl Ticket {
    /// A free lock.
    pub const fn new() -> Self {
        Self {
            next: AtomicU32::new(0),
            serving: AtomicU32::new(0),
            drawers: [const { Drawer(AtomicU64::new(0)) }; MAX_CPUS],
        }
    }

    fn drawer(&self, ticket: u32) -> &Drawer {
        &self.drawers[ticket as usize % MAX_CPUS]
    }

    #[cold]
    fn wait<M: Mode>(&self, cpu: &Cpu, ticket: u32) {
        let mut waiter = Waiter::<M>::new(cpu, self.name());
        let still = || self.serving.load(SeqCst) != ticket;
        while self.serving.load(Acquire) != ticket {
            waiter.spin_or_park(still, || self.ahead(ticket));
        }
        waiter.done();
    }

    /// The first vCPU before `ticket`, beginning with the holder, that does not run; if all run, the
    /// holder. A vCPU that went idle does not count, because the releaser wakes it. A vCPU in the middle
    /// of the queue is named so that two host CPUs can work for the queue: one of them fetches the next
    /// vCPU while the holder still runs on the other.
    fn ahead(&self, ticket: u32) -> Option<u32> {
        let serving = self.serving.load(Relaxed);
        let before = ticket.wrapping_sub(serving).min(MAX_CPUS as u32);
        let holder = self.drawer(serving).get(serving);
        (0..before)
            .map_while(|at| {
                let earlier = serving.wrapping_add(at);
                self.drawer(earlier).get(earlier)
            })
            .find(|&vcpu| !hints::running(vcpu) && !idle::asleep(vcpu))
            .or(holder.filter(|_| before > 0))
    }

    /// The vCPU that waits with this ticket, if it has recorded that already.
    fn waiter(&self, ticket: u32) -> Option<u32> {
        (self.next.load(Relaxed) != ticket).then(|| self.drawer(ticket).get(ticket))?
    }

    fn name(&self) -> u64 {
        &raw const *self as u64
    }
}

impl Lock for Ticket {
    #[inline(always)]
    fn lock<M: Mode>(&self, cpu: &Cpu) {
        preempt::disable();
        hints::acquiring::<M>(cpu);
        let ticket = self.next.fetch_add(1, Relaxed);
        if M::HINTS || M::PARK {
            self.drawer(ticket).set(ticket, cpu.index());
        }
        if self.serving.load(Acquire) != ticket {
            self.wait::<M>(cpu, ticket);
        }
    }

    #[inline(always)]
    fn unlock<M: Mode>(&self, cpu: &Cpu) {
        let next = self.serving.load(Relaxed).wrapping_add(1);
        if M::PARK {
            // This writes, then looks for a sleeper; a sleeper writes (its ticket, its `asleep`), then
            // reads `serving`.
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
