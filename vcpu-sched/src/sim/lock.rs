//! Guest locks: which vCPU has each, and which is next.

use std::collections::VecDeque;

use crate::ids::{GuestId, VcpuId};

/// A lock of a simulated guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockId(pub(crate) usize);

impl LockId {
    /// The number by which the guest names the lock to the host, as its address would.
    #[must_use]
    pub const fn address(self) -> u64 {
        0x1000 + 64 * self.0 as u64
    }
}

/// What kind of lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Waiters spin in a queue. On release the lock goes to the next in the queue, running or not.
    Ticket,
    /// Waiters spin. The first vCPU that runs and tries gets the lock.
    TestAndSet,
    /// Waiters sleep. On release the lock is handed to the first, which is woken.
    Mutex,
}

/// State of a lock.
#[derive(Clone, Debug)]
pub(crate) struct Lock {
    pub(crate) guest: GuestId,
    pub(crate) kind: LockKind,
    pub(crate) owner: Option<VcpuId>,
    /// First come, first served.
    queue: VecDeque<VcpuId>,
}

impl Lock {
    pub(crate) fn new(guest: GuestId, kind: LockKind) -> Self {
        Self {
            guest,
            kind,
            owner: None,
            queue: VecDeque::new(),
        }
    }

    /// Takes the lock if it is free and no other vCPU comes first; otherwise `vcpu` is in the queue
    /// afterwards.
    pub(crate) fn take(&mut self, vcpu: VcpuId) -> bool {
        if self.owner == Some(vcpu) {
            return true;
        }
        let next = self.kind == LockKind::TestAndSet || self.queue.is_empty();
        if self.owner.is_none() && next {
            self.queue.retain(|&waiter| waiter != vcpu);
            self.owner = Some(vcpu);
            return true;
        }
        if !self.queue.contains(&vcpu) {
            self.queue.push_back(vcpu);
        }
        false
    }

    /// Whether [`Lock::take`] would succeed.
    pub(crate) fn is_for(&self, vcpu: VcpuId) -> bool {
        self.owner == Some(vcpu) || self.owner.is_none() && self.kind == LockKind::TestAndSet
    }

    /// Lets go. Returns the vCPU that has the lock now.
    pub(crate) fn release(&mut self) -> Option<VcpuId> {
        self.owner = match self.kind {
            LockKind::TestAndSet => None,
            LockKind::Ticket | LockKind::Mutex => self.queue.pop_front(),
        };
        self.owner
    }

    /// The vCPUs that get the lock before `vcpu`, the owner first.
    pub(crate) fn ahead_of(&self, vcpu: VcpuId) -> impl Iterator<Item = VcpuId> {
        let fair = self.kind != LockKind::TestAndSet;
        let queue = self.queue.iter().copied();
        let before = queue.take_while(move |&waiter| fair && waiter != vcpu);
        self.owner.into_iter().chain(before)
    }

    /// `vcpu` is gone: it waits no longer. A lock that it holds stays held, as in a real guest.
    pub(crate) fn forget(&mut self, vcpu: VcpuId) {
        self.queue.retain(|&waiter| waiter != vcpu);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V: [VcpuId; 3] = [VcpuId(0), VcpuId(1), VcpuId(2)];

    fn contended(kind: LockKind) -> Lock {
        let mut lock = Lock::new(GuestId(0), kind);
        assert_eq!(V.map(|v| lock.take(v)), [true, false, false]);
        lock
    }

    #[test]
    fn ticket_lock_goes_to_the_next_in_the_queue() {
        let mut lock = contended(LockKind::Ticket);
        assert_eq!(lock.ahead_of(V[2]).collect::<Vec<_>>(), [V[0], V[1]]);
        assert_eq!(lock.release(), Some(V[1]));
        assert!(!lock.take(V[2]) && lock.take(V[1]));
        assert!(
            !lock.take(V[0]),
            "a vCPU that tries again is last in the queue"
        );
    }

    #[test]
    fn free_test_and_set_lock_goes_to_the_first_that_tries() {
        let mut lock = contended(LockKind::TestAndSet);
        assert_eq!(lock.ahead_of(V[2]).collect::<Vec<_>>(), [V[0]]);
        assert_eq!(lock.release(), None);
        assert!(lock.is_for(V[1]) && lock.is_for(V[2]));
        assert!(lock.take(V[2]) && !lock.take(V[1]));
    }
}
