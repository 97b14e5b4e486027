//! The workers of a pool: what each does, and which of them wait.

use std::collections::VecDeque;

use crate::ids::{CpuId, GuestId, Ns, VcpuId, WorkerId};

/// Leave to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The worker that may work.
    pub worker: WorkerId,
    /// Where.
    pub cpu: CpuId,
    /// Whose claim pays.
    pub payer: VcpuId,
    /// For how much CPU time, ns; it should ask anew then.
    pub limit: Ns,
}

/// What a worker is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerOrder {
    /// It may work.
    Work(Grant),
    /// Something more urgent has its CPU: it should stop soon, and ask anew.
    Stop(WorkerId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It has nothing to do.
    Idle,
    /// It asked, and has no grant yet.
    Waits,
    /// It works.
    Works { cpu: CpuId, payer: VcpuId },
}

#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) guest: GuestId,
    pub(crate) state: State,
    /// Where it worked last: going elsewhere costs a migration.
    pub(crate) last_cpu: Option<CpuId>,
}

/// All workers of a pool.
#[derive(Clone, Debug, Default)]
pub(crate) struct WorkerTable {
    pub(crate) all: Vec<Worker>,
    /// WorkerTable that wait, in the order in which they are looked at.
    pub(crate) waiting: VecDeque<WorkerId>,
    /// How many of them are to be looked at for every CPU, because a claim has got a budget.
    pub(crate) to_look_at: usize,
    pub(crate) orders: Vec<WorkerOrder>,
}

impl WorkerTable {
    pub(crate) fn any_waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(crate) fn orders(&mut self) -> &mut Vec<WorkerOrder> {
        &mut self.orders
    }

    /// A claim of `guest` has something left again.
    pub(crate) fn look_again(&mut self, guest: GuestId) {
        let concerned = |&worker: &WorkerId| self.all[worker.index()].guest == guest;
        if self.waiting.iter().any(concerned) {
            self.to_look_at = self.waiting.len();
        }
    }
}
