//! Queue lock (Mellor-Crummey & Scott, "Algorithms for Scalable Synchronization on Shared-Memory
//! Multiprocessors", 1991). With hints, the releaser passes over waiters that do not run: handing
//! the lock to one would stop all behind it until the host runs it again.
//!
//! A vCPU that was passed over is out of the queue. When it runs again it sees so and queues anew at
//! the end. It pays for that at most [`MAX_SKIPS`] times per acquisition; then it keeps its place
//! and gets the lock even when it does not run, and the hints of those behind it get it run.
//!
//! The bound is small because it is cheap: a skip needs the waiter to lose its host CPU while it
//! waits, which takes milliseconds from one time to the next, and a hand-over to a waiter that does
//! not run costs the others one switch, some 20 us. One in nine such waits is thus below one
//! percent, while a waiter is overtaken during at most eight of its absences.

use core::hint::spin_loop;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

use crate::cpu::{Cpu, MAX_CPUS};
use crate::lock::{Lock, Mode};
use crate::locks::waiter::Waiter;
use crate::{hints, idle, preempt};

/// How often one wait can be passed over.
const MAX_SKIPS: u32 = 8;

const NOBODY: u32 = 0;

const WAITING: u32 = 0;
const GRANTED: u32 = 1;
const SKIPPED: u32 = 2;

/// vCPUs by index plus one, [`NOBODY`] for none.
#[repr(align(64))]
pub struct Mcs {
    tail: AtomicU32,
    /// Who holds the lock (with hints): a waiter knows only its neighbours in the queue.
    owner: AtomicU32,
    nodes: [Node; MAX_CPUS],
}

/// A vCPU's place in the queue. Only its vCPU touches it, but for `next`, set once by the one
/// behind, and `state`, set once by the releaser, after which the vCPU may queue again at once: the
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
            next: AtomicU32::new(NOBODY),
            skips: AtomicU32::new(0),
        }
    }
}

impl Mcs {
    pub const fn new() -> Self {
        Self {
            tail: AtomicU32::new(NOBODY),
            owner: AtomicU32::new(NOBODY),
            nodes: [const { Node::new() }; MAX_CPUS],
        }
    }

    /// The node of a vCPU by index plus one.
    fn node(&self, who: u32) -> &Node {
        &self.nodes[who as usize - 1]
    }

    /// Queues; whether the lock was free.
    #[inline(always)]
    fn enqueue(&self, me: u32) -> bool {
        let node = self.node(me);
        node.next.store(NOBODY, Relaxed);
        node.state.store(WAITING, Relaxed);
        let before = self.tail.swap(me, AcqRel);
        if before != NOBODY {
            self.node(before).next.store(me, Release);
        }
        before == NOBODY
    }

    #[cold]
    fn wait<M: Mode>(&self, cpu: &Cpu, me: u32) {
        let mut waiter = Waiter::<M>::new(cpu, self.name());
        let node = self.node(me);
        let still = || node.state.load(SeqCst) == WAITING;
        let holder = || self.owner.load(Relaxed).checked_sub(1);
        loop {
            while node.state.load(Acquire) == WAITING {
                waiter.turn(still, holder);
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

    /// Hands the lock on, `next` being first in the queue; who got it.
    #[inline(always)]
    fn hand_on<M: Mode>(&self, mut next: u32) -> Option<u32> {
        loop {
            let vcpu = next - 1;
            let node = self.node(next);
            // `skips` was written before its vCPU queued, and `next` was read after.
            if !M::HINTS || hints::running(vcpu) || node.skips.load(Relaxed) >= MAX_SKIPS {
                if M::HINTS {
                    self.owner.store(next, Relaxed);
                }
                Self::tell::<M>(node, vcpu, GRANTED);
                return Some(vcpu);
            }
            let after = self.behind::<M>(next);
            Self::tell::<M>(node, vcpu, SKIPPED);
            if after == NOBODY {
                return None;
            }
            next = after;
        }
    }

    /// Who is behind `who`; if nobody, the queue is empty and the lock free.
    ///
    /// One that has queued but is not linked yet has to be waited for. It is two instructions away
    /// from that; should the host stop it just there, this waits as long as it is stopped.
    #[inline(always)]
    fn behind<M: Mode>(&self, who: u32) -> u32 {
        let node = self.node(who);
        let next = node.next.load(Acquire);
        if next != NOBODY {
            return next;
        }
        if M::HINTS {
            self.owner.store(NOBODY, Relaxed);
        }
        if self
            .tail
            .compare_exchange(who, NOBODY, Release, Relaxed)
            .is_ok()
        {
            return NOBODY;
        }
        loop {
            let next = node.next.load(Acquire);
            if next != NOBODY {
                return next;
            }
            spin_loop();
        }
    }

    /// Ends a wait, one way or the other.
    #[inline(always)]
    fn tell<M: Mode>(node: &Node, vcpu: u32, state: u32) {
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
        preempt::disable(cpu);
        hints::takes::<M>(cpu);
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
        let successor = (next != NOBODY).then(|| self.hand_on::<M>(next)).flatten();
        hints::released::<M>(cpu, self.name(), || successor);
        preempt::enable(cpu);
    }
}
