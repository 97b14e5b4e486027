//! The guests of a pool, from the moment they join until the pool has forgotten them.

use std::sync::Arc;

use baton_machine::GuestRecord;
use vcpu_sched::{CpuSet, SchedParams, WorkerId};

use super::allowed_cpus::AllowedCpus;
use super::doorbell_storm::StormDetector;
use super::policy_ids::PolicyIds;

/// What a guest is to its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Membership {
    /// The policy has admitted it, and its threads are being started.
    Joining,
    /// It runs, is paused, or has ended by itself and waits to be collected.
    Joined,
    /// Its vCPUs are on their way back, because it is to leave.
    Leaving,
    /// It has left. Its ids in the policy are not free yet, because one of its devices' threads is still at
    /// work.
    Left,
}

/// What the policy was given for one vCPU.
#[derive(Clone, Debug)]
pub(crate) struct VcpuTerms {
    pub(crate) params: SchedParams,
    /// `None`: all CPUs of the pool.
    pub(crate) allowed: Option<CpuSet>,
    /// The same as the host numbers them, for the threads of the vCPU.
    pub(crate) host_cpus: Arc<AllowedCpus>,
}

/// The threads of a guest's vCPUs. They end when this is dropped, which waits for them.
pub(crate) type GuestThreads = Vec<Box<dyn Send>>;

/// A guest of the pool.
pub(crate) struct PoolGuest {
    /// Not the guest itself, which has to go when it has ended.
    record: Arc<GuestRecord>,
    ids: PolicyIds,
    /// Its place in the order in which guests have joined the pool.
    pub(super) order: u64,
    /// The policy's ids of the threads of its devices, by slot.
    pub(crate) workers: Vec<WorkerId>,
    /// Detects doorbells that change nothing.
    pub(crate) storm: StormDetector,
    pub(crate) membership: Membership,
    /// Whether it is paused.
    pub(crate) is_paused: bool,
    /// By vCPU.
    pub(crate) terms: Vec<VcpuTerms>,
    pub(crate) threads: GuestThreads,
    /// How many threads wait for a change of this guest. Its ids are not given to others meanwhile.
    pub(crate) waiters: usize,
    /// Its vCPUs have left the policy.
    has_left_policy: bool,
}

impl PoolGuest {
    /// The guest of `record`, which the policy has admitted as `ids` with these terms.
    pub(crate) fn new(
        record: Arc<GuestRecord>,
        ids: PolicyIds,
        terms: Vec<VcpuTerms>,
        workers: Vec<WorkerId>,
    ) -> Self {
        Self {
            record,
            ids,
            order: 0,
            workers,
            storm: StormDetector::default(),
            membership: Membership::Joining,
            is_paused: false,
            terms,
            threads: Vec::new(),
            waiters: 0,
            has_left_policy: false,
        }
    }

    /// What is known of the guest, whether or not it has ended.
    pub(crate) fn record(&self) -> &Arc<GuestRecord> {
        &self.record
    }

    /// The policy's ids of it.
    pub(crate) fn ids(&self) -> &PolicyIds {
        &self.ids
    }

    /// Whether its name is taken.
    pub(crate) fn has_name(&self, name: &str) -> bool {
        self.membership != Membership::Left && self.record.name == name
    }

    /// Its vCPUs leave the policy. False: they have before.
    pub(crate) fn leave_policy(&mut self) -> bool {
        !std::mem::replace(&mut self.has_left_policy, true)
    }
}
