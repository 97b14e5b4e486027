//! The threads of guests' devices as the pool sees them: where each receives its orders, and whether it works.

use std::sync::Arc;

use vcpu_sched::{Grant, GuestId, WorkerId, WorkerOrder};

use super::cpu_grant::GrantInbox;

struct WorkerRow {
    guest: GuestId,
    inbox: Arc<GrantInbox>,
    /// It has been granted CPU time, and has not reported that it stopped.
    works: bool,
}

/// The device threads of a pool, by their ids in the policy.
#[derive(Default)]
pub(crate) struct WorkerTable(Vec<Option<WorkerRow>>);

impl WorkerTable {
    fn row_mut(&mut self, id: WorkerId) -> Option<&mut WorkerRow> {
        self.0.get_mut(id.index())?.as_mut()
    }

    /// Worker `id` of `guest` is new.
    pub(crate) fn add(&mut self, id: WorkerId, guest: GuestId) {
        if self.0.len() <= id.index() {
            self.0.resize_with(id.index() + 1, || None);
        }
        self.0[id.index()] = Some(WorkerRow {
            guest,
            inbox: Arc::default(),
            works: false,
        });
    }

    /// Forgets `id`, which the policy may give to another worker from now on.
    pub(crate) fn remove(&mut self, id: WorkerId) {
        if let Some(row) = self.0.get_mut(id.index()) {
            *row = None;
        }
    }

    /// Where the orders for `id` arrive.
    pub(crate) fn inbox(&self, id: WorkerId) -> Option<Arc<GrantInbox>> {
        let row = self.0.get(id.index())?.as_ref()?;
        Some(Arc::clone(&row.inbox))
    }

    /// Where the orders for all of them arrive.
    pub(crate) fn inboxes(&self) -> Vec<Arc<GrantInbox>> {
        let rows = self.0.iter().flatten();
        rows.map(|row| Arc::clone(&row.inbox)).collect()
    }

    /// The guest of `id`, if `inbox` is where the orders for `id` arrive. `None`: the guest of that inbox has
    /// left, and `id` is another worker now, or none.
    pub(crate) fn guest(&self, id: WorkerId, inbox: &Arc<GrantInbox>) -> Option<GuestId> {
        let row = self.0.get(id.index())?.as_ref()?;
        Arc::ptr_eq(&row.inbox, inbox).then_some(row.guest)
    }

    /// Worker `id` has stopped.
    pub(crate) fn stopped(&mut self, id: WorkerId) {
        if let Some(row) = self.row_mut(id) {
            row.works = false;
        }
    }

    /// Whether one of `workers` works.
    pub(crate) fn any_works(&self, workers: &[WorkerId]) -> bool {
        let works = |id: &WorkerId| self.0.get(id.index())?.as_ref().map(|row| row.works);
        workers.iter().any(|id| works(id) == Some(true))
    }

    /// Addresses `order` to its worker.
    pub(crate) fn address(&mut self, order: WorkerOrder) -> Option<(Arc<GrantInbox>, WorkerOrder)> {
        let (WorkerOrder::Work(Grant { worker, .. }) | WorkerOrder::Stop(worker)) = order;
        let row = self.row_mut(worker)?;
        row.works |= matches!(order, WorkerOrder::Work(_));
        Some((Arc::clone(&row.inbox), order))
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
