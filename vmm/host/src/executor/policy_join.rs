//! The first step by which a guest joins, whichever process it is in: the policy admits it, and the pool has its
//! name and its ids.

use std::sync::Arc;

use baton_machine::GuestRecord;

use super::admission::{self, Admitted, Request};
use super::allowed_cpus::AllowedCpus;
use super::guest_names::vcpu_names;
use super::join_error::JoinErrorKind;
use super::policy_ids::PolicyIds;
use super::pool::Pool;
use super::pool_guest::{PoolGuest, VcpuTerms};
use super::pool_state::PoolState;

/// A guest that the policy has admitted.
pub(super) struct InPolicy {
    pub(super) ids: PolicyIds,
    /// The host CPUs on which each vCPU may run.
    pub(super) host_cpus: Vec<Arc<AllowedCpus>>,
}

/// Has the policy admit the guest of `record` with these `requests` and `workers` device threads. The name of its
/// first vCPU has number `first` among those that are left for the trace, if it is left there.
///
/// # Errors
/// Why the guest cannot join. The pool is as before.
pub(super) fn admit(
    pool: &Pool,
    record: &Arc<GuestRecord>,
    requests: &[Request],
    workers: usize,
    first: Option<u32>,
) -> Result<InPolicy, JoinErrorKind> {
    let cpus = pool.host_cpus();
    let on_host =
        |&(_, allowed): &Request| Arc::new(AllowedCpus::new(admission::on_host(allowed, cpus)));
    let host_cpus: Vec<_> = requests.iter().map(on_host).collect();
    let terms = requests.iter().zip(&host_cpus);
    let terms = terms.map(|(&(params, allowed), host_cpus)| VcpuTerms {
        params,
        allowed,
        host_cpus: Arc::clone(host_cpus),
    });
    let terms: Vec<VcpuTerms> = terms.collect();
    pool.change(|state, now| {
        state.can_join(&record.name)?;
        let Admitted { ids, workers } = admission::admit(&mut state.sched, requests, workers, now)
            .map_err(JoinErrorKind::from)?;
        let probes = state.sched.events_mut();
        probes.joined(now, ids.vcpus(), first);
        state.add(PoolGuest::new(
            Arc::clone(record),
            ids.clone(),
            terms,
            workers,
        ));
        Ok(InPolicy { ids, host_cpus })
    })
}

/// The same for a guest that joins while others run.
///
/// # Errors
/// As [`admit`].
pub(super) fn admit_later(
    pool: &Pool,
    record: &Arc<GuestRecord>,
    requests: &[Request],
    workers: usize,
) -> Result<InPolicy, JoinErrorKind> {
    let Some(names) = &pool.joined_names else {
        return admit(pool, record, requests, workers, None);
    };
    let count = requests.len();
    let first = names.add(vcpu_names(record, count).collect());
    admit(pool, record, requests, workers, Some(first))
        .inspect_err(|_| names.withdraw(first, count as u32))
}

/// Takes a guest out again that has not begun.
pub(super) fn undo(pool: &Pool, ids: &PolicyIds) {
    let id = ids.guest();
    pool.change(|state, now| {
        state.sched.remove_guest(id, now);
        for &vcpu in ids.vcpus().iter() {
            state.sched.events_mut().gone(now, vcpu);
        }
        state.leave(id, now);
    });
}

impl PoolState {
    /// Whether a guest called `name` may join.
    fn can_join(&self, name: &str) -> Result<(), JoinErrorKind> {
        if self.is_stopping() {
            return Err(JoinErrorKind::Stopped);
        }
        match self.guests.named(name) {
            Some(_) => Err(JoinErrorKind::NameTaken),
            None => Ok(()),
        }
    }
}
