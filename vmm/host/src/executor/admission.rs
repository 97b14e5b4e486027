//! Has the policy admit a guest.

use baton_config::GuestConfig;
use vcpu_sched::{AdmissionError, CpuId, CpuSet, Ns, SchedParams, VcpuId, WorkerId};

use super::policy_ids::PolicyIds;
use super::probes::PoolPolicy;

/// The terms on which one vCPU is to join.
pub(super) type Request = (SchedParams, Option<CpuSet>);

/// A guest that the policy has admitted.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) ids: PolicyIds,
    pub(super) workers: Vec<WorkerId>,
}

/// Why the policy has not admitted a guest, of which nothing is left in the policy.
#[derive(Debug)]
pub(super) struct NotAdmitted {
    /// Index of the vCPU.
    pub(super) vcpu: usize,
    /// What would fit.
    pub(super) source: AdmissionError,
    /// When bandwidth is free that guests have left behind and that is still in use, ns.
    pub(super) retry_at: Option<Ns>,
}

/// Has `sched` admit a guest with the vCPUs `requests` and `workers` device threads, at `now`, ns. Its vCPUs are
/// halted.
///
/// # Errors
/// If a reservation cannot be guaranteed beside the others, or there are too many vCPUs.
pub(super) fn admit(
    sched: &mut PoolPolicy,
    requests: &[Request],
    workers: usize,
    now: Ns,
) -> Result<Admitted, NotAdmitted> {
    let retry_at = sched.free_held_bandwidth(now);
    let guest = sched.add_guest();
    let mut vcpus: Vec<VcpuId> = Vec::with_capacity(requests.len());
    for (vcpu, &(params, allowed)) in requests.iter().enumerate() {
        match sched.add_vcpu(guest, params, allowed) {
            Ok(id) => vcpus.push(id),
            Err(source) => {
                // None of its vCPUs has run, so all of it is free at once.
                sched.remove_guest(guest, now);
                sched.reclaim_guest(guest, now);
                return Err(NotAdmitted {
                    vcpu,
                    source,
                    retry_at,
                });
            }
        }
    }
    Ok(Admitted {
        ids: PolicyIds::new(guest, vcpus),
        workers: (0..workers).map(|_| sched.add_worker(guest)).collect(),
    })
}

/// What `config` has for its vCPUs, in a pool of `host_cpus`.
pub(super) fn requests(config: &GuestConfig, host_cpus: &[usize]) -> Vec<Request> {
    let request = |vcpu: usize| {
        let own = config.host_cpus.get(vcpu).and_then(Option::as_deref);
        let allowed = own.map(|own| in_pool(own, host_cpus));
        (sched_params(config, vcpu), allowed)
    };
    (0..config.cpus).map(request).collect()
}

fn sched_params(config: &GuestConfig, vcpu: usize) -> SchedParams {
    match config.reservations.get(vcpu) {
        Some(&Some(reservation)) => SchedParams::Reserved(reservation),
        _ => SchedParams::BestEffort {
            weight: config.weight,
        },
    }
}

/// The host CPUs `own` as the policy numbers those of the pool, which are `host_cpus`.
pub(super) fn in_pool(own: &[usize], host_cpus: &[usize]) -> CpuSet {
    (0..)
        .zip(host_cpus)
        .filter(|(_, cpu)| own.contains(cpu))
        .map(|(number, _)| CpuId(number))
        .collect()
}

/// Those of the pool's `host_cpus` that are in `allowed`; all of them for `None`.
pub(super) fn on_host(allowed: Option<CpuSet>, host_cpus: &[usize]) -> Vec<usize> {
    (0..)
        .zip(host_cpus)
        .filter(|&(number, _)| allowed.is_none_or(|allowed| allowed.contains(CpuId(number))))
        .map(|(_, &cpu)| cpu)
        .collect()
}
