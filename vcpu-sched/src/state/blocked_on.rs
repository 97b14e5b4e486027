//! The `blocked_on` graph: which vCPU waits for which.
//!
//! ```text
//!   waiter --lock--> holder          at most one edge leaves a vCPU, any number may arrive
//! ```
//!
//! An edge is what a guest *published*. It never leads out of the guest. It lives only while its waiter
//! is off the CPUs, because a waiter that runs publishes anew what it waits for. It may be stale or a
//! lie; the walk in `proxy.rs` copes with both.

use crate::ids::VcpuId;
use crate::state::lists::Lists;

/// How a waiter waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitKind {
    /// It spins: it burns its budget when it runs, and cannot be told when the wait is over.
    Spin,
    /// A task sleeps and the vCPU idles: it is woken when the wait is over.
    Block,
}

/// What a guest says about a wait, already checked for form (the policy checks its sense).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// How it waits.
    pub kind: WaitKind,
    /// A number that names the lock within the guest.
    pub lock: u64,
    /// The vCPU that must run before this one can go on.
    pub holder: VcpuId,
    /// The holder's release count when the waiter looked at it.
    pub holder_releases: u32,
}

/// What the policy is told about a vCPU's hints each time it stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Hints {
    /// Locks held, or being taken.
    pub depth: u32,
    /// Locks released so far, wrapping: tells a stale edge to this holder.
    pub releases: u32,
    /// The vCPU that it waits for.
    pub wait: Option<Wait>,
}

/// The graph, with the waiters of each holder in a list, so that a release finds them.
#[derive(Clone, Debug, Default)]
pub(crate) struct BlockedOn {
    edges: Vec<Option<Wait>>,
    waiters: Lists,
}

impl Hints {
    /// Whether it says that it holds a lock: one that is being taken does not count.
    pub(crate) fn holds(&self) -> bool {
        self.depth > u32::from(self.spins())
    }

    fn spins(&self) -> bool {
        self.wait.is_some_and(|wait| wait.kind == WaitKind::Spin)
    }
}

impl BlockedOn {
    pub(crate) fn grow(&mut self, vcpus: usize) {
        self.edges.resize(vcpus.max(self.edges.len()), None);
        self.waiters.grow(vcpus);
    }

    pub(crate) fn edge(&self, waiter: VcpuId) -> Option<Wait> {
        self.edges[waiter.index()]
    }

    /// Sets `waiter`'s only edge. The caller has checked that the holder is in the same guest and
    /// is not the waiter.
    pub(crate) fn set(&mut self, waiter: VcpuId, wait: Wait) {
        debug_assert_ne!(waiter, wait.holder);
        self.edges[waiter.index()] = Some(wait);
        self.waiters.join(waiter, wait.holder);
    }

    /// Removes and returns `waiter`'s edge.
    pub(crate) fn drop_edge(&mut self, waiter: VcpuId) -> Option<Wait> {
        self.waiters.leave(waiter);
        self.edges[waiter.index()].take()
    }

    /// The first vCPU that waits for `holder`; [`BlockedOn::next_waiter`] has the others. At most
    /// as many as the guest has vCPUs.
    pub(crate) fn first_waiter(&self, holder: VcpuId) -> Option<VcpuId> {
        self.waiters.first(holder)
    }

    /// The vCPU after `waiter` in the list of those that wait for the same holder.
    pub(crate) fn next_waiter(&self, waiter: VcpuId) -> Option<VcpuId> {
        self.waiters.next(waiter)
    }
}
