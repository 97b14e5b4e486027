//! The `blocked_on` graph: which vCPU waits for which.
//!
//! ```text
//!   waiter --lock--> holder          at most one edge leaves a vCPU, any number may lead to it
//! ```
//!
//! An edge is what a guest *published*, or leads to a vCPU that the policy *suspects* (`rules/suspect.rs`). It
//! never leads out of the guest. It lives only while its waiter is off the CPUs, because a waiter that runs
//! publishes anew what it waits for, or is seen to spin. It may be stale or false: `rules/edges.rs` decides
//! whether it counts.

use crate::ids::VcpuId;
use crate::normal_form::{Normalise, Writer};
use crate::state::lists::Lists;

/// How a waiter waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitKind {
    /// It spins: when it runs, it burns its budget, and it finds out by itself when the wait is over.
    Spin,
    /// A task sleeps and the vCPU idles: it is woken when the wait is over.
    Block,
    /// It spins, or is about to, for a holder that is not known: the edge leads to a vCPU that the policy
    /// suspects. No guest publishes this.
    Suspect,
}

/// What a guest publishes about a wait. The caller has checked the form; the policy checks the sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// How the vCPU waits.
    pub kind: WaitKind,
    /// A number that names the lock within the guest.
    pub lock: u64,
    /// The vCPU that must run before the waiter can go on.
    pub holder: VcpuId,
    /// The holder's release count when the waiter read it.
    pub holder_releases: u32,
}

impl Wait {
    /// Whether the policy has drawn this edge on a guess; otherwise the guest has published it.
    pub(crate) fn is_suspicion(&self) -> bool {
        self.kind == WaitKind::Suspect
    }
}

/// What is known of a vCPU each time it stops: what it has published, or what the host has inferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Hints {
    /// Locks that it holds or is taking.
    pub depth: u32,
    /// Locks that it has released so far, wrapping. A change shows that edges to this vCPU are stale.
    pub releases: u32,
    /// The vCPU that it waits for.
    pub wait: Option<Wait>,
    /// Whether it spins for a vCPU that is not known.
    pub waits: bool,
    /// Whether the host has inferred this, and the vCPU will not ring at a release.
    pub is_guess: bool,
}

impl Hints {
    /// Whether the vCPU holds a lock, by its own account. A lock that it is taking does not count.
    pub(crate) fn holds(&self) -> bool {
        self.depth > u32::from(self.spins())
    }

    fn spins(&self) -> bool {
        self.waits || self.wait.is_some_and(|wait| wait.kind == WaitKind::Spin)
    }
}

/// The graph. The waiters of each holder are in a list, so that a release finds them.
#[derive(Clone, Debug, Default)]
pub(crate) struct BlockedOn {
    edges: Vec<Option<Wait>>,
    waiters: Lists,
}

impl BlockedOn {
    pub(crate) fn grow(&mut self, vcpus: usize) {
        self.edges.resize(vcpus.max(self.edges.len()), None);
        self.waiters.grow(vcpus);
    }

    pub(crate) fn edge(&self, waiter: VcpuId) -> Option<Wait> {
        self.edges[waiter.index()]
    }

    /// Sets the only edge of `waiter`. The caller has checked that the holder is another vCPU of the same
    /// guest.
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

    /// The first vCPU that waits for `holder`; [`BlockedOn::next_waiter`] returns the others. There are at
    /// most as many as the guest has vCPUs.
    pub(crate) fn first_waiter(&self, holder: VcpuId) -> Option<VcpuId> {
        self.waiters.first(holder)
    }

    /// The vCPU after `waiter` in the list of the vCPUs that wait for the same holder.
    pub(crate) fn next_waiter(&self, waiter: VcpuId) -> Option<VcpuId> {
        self.waiters.next(waiter)
    }
}

impl Normalise for WaitKind {
    fn normalise(&self, to: &mut Writer) {
        to.number(match self {
            Self::Spin => 0_u8,
            Self::Block => 1,
            Self::Suspect => 2,
        });
    }
}

impl Normalise for Wait {
    fn normalise(&self, to: &mut Writer) {
        let Self {
            kind,
            lock,
            holder,
            holder_releases,
        } = self;
        to.part(kind);
        to.number(*lock);
        to.vcpu(*holder);
        to.number(*holder_releases);
    }
}

impl Normalise for Hints {
    fn normalise(&self, to: &mut Writer) {
        let &Self {
            depth,
            releases,
            wait,
            waits,
            is_guess,
        } = self;
        to.number(depth);
        to.number(releases);
        // The edge has the rest.
        to.flag(wait.is_some());
        to.flag(waits);
        to.flag(is_guess);
    }
}

impl BlockedOn {
    /// Writes the normal form of what waits for `holder`, and for which vCPU it waits itself.
    pub(crate) fn normalise(&self, holder: VcpuId, to: &mut Writer) {
        to.option(self.edge(holder), |to, wait| to.part(&wait));
        self.waiters.normalise(holder, to);
    }
}
