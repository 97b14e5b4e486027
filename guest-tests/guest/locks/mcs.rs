//! Queue lock (Mellor-Crummey & Scott, "Algorithms for Scalable Synchronization on Shared-Memory
//! Multiprocessors", 1991). With hints, the releaser skips waiters that do not run: a waiter that got
//! the lock without running would stop all waiters behind it until the host runs it again.
//!
//! A vCPU that was skipped is out of the queue. When it runs again it finds that out and queues again at
//! the end. This happens at most [`MAX_SKIPS`] times per acquisition. After that the vCPU keeps its place
//! and gets the lock even while it does not run, and the hints of the waiters behind it make the host
//! run it.
//!
//! A small bound suffices. A skip requires that the waiter loses its host CPU while it waits, which
//! happens every few milliseconds at most, and a hand-over to a waiter that does not run costs the
//! others one switch, some 20 us. One such hand-over in nine waits costs less than one percent, and a
//! waiter is overtaken during at most eight of its absences.

use core::hint::spin_loop;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

use crate::cpu::{Cpu, MAX_CPUS};
use crate::lock::{Lock, Mode};
use crate::locks::waiter::Waiter;
use crate::{hints, idle, preempt};

/// How often a vCPU can be skipped in one wait.
const MAX_SKIPS: u32 = 8;

const NO_VCPU: u32 = 0;

const WAITING: u32 = 0;
const GRANTED: u32 = 1;
const SKIPPED: u32 = 2;

/// vCPUs by index plus one, [`NO_VCPU`] for none.
#[repr(align(64))]
pub struct Mcs {
    tail: AtomicU32,
    /// The holder (with hints), because a waiter's node refers only to its neighbours in the queue.
    owner: AtomicU32,
    nodes: [Node; MAX_CPUS],
}

/// A vCPU's place in the queue. Only that vCPU writes it, except for `next`, which the next waiter sets
/// once, and `state`, which the releaser sets once. After that the vCPU may queue again at once, so the
/// releaser reads what it needs before.
#[repr(align(64))]
struct Node {
    state: AtomicU32,
    next: AtomicU32,
    skips: AtomicU32,
}

impl Node {
    const fn new() -> Self {
        Self {
            state: AtomicU32::new(WAITING),
            next: AtomicU32::new(NO_VCPU),
            skips: AtomicU32::new(0),
        }
    }
}

impl Mcs {
    /// A free lock.
    pub const fn new() -> Self {
        Self {
            tail: AtomicU32::new(NO_VCPU),
            owner: AtomicU32::new(NO_VCPU),
            nodes: [const { Node::new() }; MAX_CPUS],
        }
    }

    /// The node of a vCPU, by its index plus one.
    fn node(&self, vcpu: u32) -> &Node {
        &self.nodes[vcpu as usize - 1]
    }

    /// Queues this vCPU. Returns whether the lock was free, so that the vCPU has it.
    #[inline(always)]
    fn enqueue(&self, me: u32) -> bool {
        let node = self.node(me);
        node.next.store(NO_VCPU, Relaxed);
        node.state.store(WAITING, Relaxed);
        let before = self.tail.swap(me, AcqRel);
        if before != NO_VCPU {
            self.node(before).next.store(me, Release);
        }
        before == NO_VCPU
    }

    #[cold]
    fn wait<M: Mode>(&self, cpu: &Cpu, me: u32) {
        let mut waiter = Waiter::<M>::new(cpu, self.name());
        let node = self.node(me);
        let still = || node.state.load(SeqCst) == WAITING;
        let holder = || self.owner.load(Relaxed).checked_sub(1);
        loop {
            while node.state.load(Acquire) == WAITING {
                waiter.spin_or_park(still, holder);
            }
            if node.state.load(Relaxed) == GRANTED {
                break;
            }
            cpu.stats.skipped.add(1);
            node.skips.store(node.skips.load(Relaxed) + 1, Relaxed);
            if self.enqueue(me) {
                self.owner.store(me, Relaxed);
                break;
            }
        }
        if M::HINTS {
            node.skips.store(0, Relaxed);
        }
        waiter.done();
    }

    /// Hands the lock to `next`, the first in the queue, or to a waiter behind it. Returns the vCPU that
    /// got it; `None` if all waiters were skipped.
    #[inline(always)]
    fn hand_over<M: Mode>(&self, mut next: u32) -> Option<u32> {
        loop {
            let vcpu = next - 1;
            let node = self.node(next);
            // `skips` was written before its vCPU queued, and `next` was read after.
            if !M::HINTS || hints::running(vcpu) || node.skips.load(Relaxed) >= MAX_SKIPS {
                if M::HINTS {
                    self.owner.store(next, Relaxed);
                }
                Self::end_wait::<M>(node, vcpu, GRANTED);
                return Some(vcpu);
            }
            let after = self.behind::<M>(next);
            Self::end_wait::<M>(node, vcpu, SKIPPED);
            if after == NO_VCPU {
                return None;
            }
            next = after;
        }
    }

    /// The waiter behind `vcpu`. If it is [`NO_VCPU`], the queue is empty and the lock free.
    ///
    /// A waiter that has queued but is not linked yet has to be waited for. It links itself two
    /// instructions later; if the host stops it between them, this waits until the host runs it again.
    #[inline(always)]
    fn behind<M: Mode>(&self, vcpu: u32) -> u32 {
        let node = self.node(vcpu);
        let next = node.next.load(Acquire);
        if next != NO_VCPU {
            return next;
        }
        if M::HINTS {
            self.owner.store(NO_VCPU, Relaxed);
        }
        if self
            .tail
            .compare_exchange(vcpu, NO_VCPU, Release, Relaxed)
            .is_ok()
        {
            return NO_VCPU;
        }
        loop {
            let next = node.next.load(Acquire);
            if next != NO_VCPU {
                return next;
            }
            spin_loop();
        }
    }

    /// Ends the wait of the vCPU with this node: its lock was granted, or it was skipped.
    #[inline(always)]
    fn end_wait<M: Mode>(node: &Node, vcpu: u32, state: u32) {
        if M::PARK {
            node.state.swap(state, SeqCst);
            idle::wake(vcpu);
        } else {
            node.state.store(state, Release);
        }
    }

    fn name(&self) -> u64 {
        &raw const *self as u64
    }
}

impl Lock for Mcs {
    #[inline(always)]
    fn lock<M: Mode>(&self, cpu: &Cpu) {
        preempt::disable();
        hints::acquiring::<M>(cpu);
        let me = cpu.index() + 1;
        if !self.enqueue(me) {
            self.wait::<M>(cpu, me);
        } else if M::HINTS {
            self.owner.store(me, Relaxed);
        }
    }

    #[inline(always)]
    fn unlock<M: Mode>(&self, cpu: &Cpu) {
        let next = self.behind::<M>(cpu.index() + 1);
        let successor = (next != NO_VCPU)
            .then(|| self.hand_over::<M>(next))
            .flatten();
        hints::released::<M>(cpu, self.name(), || successor);
        preempt::enable(cpu);
    }
}
