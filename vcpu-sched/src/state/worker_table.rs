//! The workers of a pool: what each does, and which of them wait.

use std::collections::VecDeque;

use crate::ids::{CpuId, GuestId, Ns, VcpuId, WorkerId};
use crate::normal_form::{Normalise, Writer};
use crate::table::Table;

/// Permission to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The worker that may work.
    pub worker: WorkerId,
    /// Where.
    pub cpu: CpuId,
    /// The vCPU whose scheduling context is charged.
    pub donor: VcpuId,
    /// For how much CPU time, ns. After that the worker should request a new grant.
    pub limit: Ns,
}

/// An order for a worker's thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerOrder {
    /// It may work.
    Work(Grant),
    /// Something more urgent has its CPU: it should stop soon, and request a new grant.
    Stop(WorkerId),
}

impl WorkerOrder {
    /// The worker that gets the order.
    #[must_use]
    pub const fn worker(&self) -> WorkerId {
        match self {
            Self::Work(grant) => grant.worker,
            Self::Stop(worker) => *worker,
        }
    }
}

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerState {
    /// It has nothing to do.
    Idle,
    /// It has work, and no grant yet.
    Waiting,
    /// It works.
    Working { cpu: CpuId, donor: VcpuId },
}

/// One worker.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) guest: GuestId,
    pub(crate) state: WorkerState,
    /// Where it worked last: a migration has a cost.
    pub(crate) last_cpu: Option<CpuId>,
}

/// All workers of a pool.
#[derive(Clone, Debug)]
pub(crate) struct WorkerTable {
    pub(crate) rows: Table<WorkerId, Worker>,
    /// Workers that wait, in the order in which they are served.
    pub(crate) waiting: VecDeque<WorkerId>,
    /// How many of them may now find a grant on any CPU, because a scheduling context was replenished.
    pub(crate) to_retry: usize,
    pub(crate) orders: Vec<WorkerOrder>,
}

impl WorkerTable {
    pub(crate) const fn new() -> Self {
        Self {
            rows: Table::new(),
            waiting: VecDeque::new(),
            to_retry: 0,
            orders: Vec::new(),
        }
    }

    /// Adds a worker of `guest`, with room for its orders.
    pub(crate) fn add(&mut self, guest: GuestId) -> WorkerId {
        let worker = self.rows.add(Worker {
            guest,
            state: WorkerState::Idle,
            last_cpu: None,
        });
        let count = self.rows.len();
        self.waiting
            .reserve(count.saturating_sub(self.waiting.len()));
        self.orders
            .reserve((2 * count).saturating_sub(self.orders.len()));
        worker
    }

    /// The workers of `guest`.
    pub(crate) fn of(&self, guest: GuestId) -> impl Iterator<Item = WorkerId> + use<'_> {
        let all = self.rows.ids();
        all.filter(move |&worker| self.rows[worker].guest == guest)
    }

    /// Takes out a worker that does not work, with what it was ordered.
    pub(crate) fn remove(&mut self, worker: WorkerId) {
        self.rows.remove(worker);
        self.waiting.retain(|&waits| waits != worker);
        self.to_retry = self.to_retry.min(self.waiting.len());
        self.orders.retain(|order| order.worker() != worker);
    }

    pub(crate) fn any_waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A scheduling context of `guest` has a budget again: workers that wait may get a grant.
    pub(crate) fn retry_for(&mut self, guest: GuestId) {
        let concerned = |&worker: &WorkerId| self.rows[worker].guest == guest;
        if self.waiting.iter().any(concerned) {
            self.to_retry = self.waiting.len();
        }
    }
}

impl Normalise for Worker {
    fn normalise(&self, to: &mut Writer) {
        let &Self {
            guest,
            state,
            last_cpu,
        } = self;
        to.number(guest.0);
        match state {
            WorkerState::Idle => to.number(0_u8),
            WorkerState::Waiting => to.number(1_u8),
            WorkerState::Working { cpu, donor } => {
                to.number(2_u8);
                to.cpu(cpu);
                to.vcpu(donor);
            }
        }
        to.option(last_cpu, Writer::cpu);
    }
}

impl Normalise for WorkerTable {
    fn normalise(&self, to: &mut Writer) {
        let Self {
            rows,
            waiting,
            to_retry,
            orders,
        } = self;
        for worker in rows.place_ids() {
            to.option(rows.get(worker), |to, row| to.part(row));
        }
        to.list(waiting.iter(), |to, worker| to.number(worker.0));
        to.size(*to_retry);
        to.list(orders, |to, order| {
            to.flag(matches!(order, WorkerOrder::Work(_)));
            to.number(order.worker().0);
        });
    }
}
