//! Has the policy admit all vCPUs of a run.

use baton_config::{GuestConfig, RunConfig};
use vcpu_sched::{Config, CpuId, CpuSet, MAX_CPUS, SchedParams, VcpuId};

use super::error::ExecutorError;
use super::probes::{PolicyProbes, PoolPolicy};
use crate::runner::ReadyGuest;

/// Adds `guests` to a new policy for the host CPUs `cpus`. Also returns the policy's number for each guest's
/// first vCPU.
///
/// # Errors
/// If there are too many host CPUs, or a reservation cannot be guaranteed.
pub(super) fn admit(
    config: &RunConfig,
    cpus: &[usize],
    guests: &[ReadyGuest],
    probes: PolicyProbes,
) -> Result<(PoolPolicy, Vec<VcpuId>), ExecutorError> {
    if cpus.len() > MAX_CPUS {
        return Err(ExecutorError::TooManyCpus(cpus.len()));
    }
    let policy = Config {
        proxy: config.proxy,
        defer_ns: config.defer.map(|deferral| deferral.as_nanos() as u64),
        slice_ns: config.slice.as_nanos() as u64,
        ..Config::new(cpus.len())
    };
    let kind = config.sched.policy().unwrap_or_default();
    let mut sched = kind.pool(policy, probes);
    let mut firsts = Vec::new();
    let mut next = VcpuId(0);
    for ready in guests {
        firsts.push(next);
        let guest = sched.add_guest();
        for vcpu in 0..ready.config.cpus {
            let name = || ready.config.name.clone();
            let params = sched_params(&ready.config, vcpu);
            let allowed = ready.config.host_cpus[vcpu]
                .as_deref()
                .map(|own| in_pool(own, cpus));
            let added = sched.add_vcpu(guest, params, allowed).map_err(|source| {
                ExecutorError::Admission {
                    guest: name(),
                    vcpu,
                    source,
                }
            })?;
            next = VcpuId(added.0 + 1);
        }
    }
    Ok((sched, firsts))
}

fn sched_params(config: &GuestConfig, vcpu: usize) -> SchedParams {
    match config.reservations[vcpu] {
        Some(reservation) => SchedParams::Reserved(reservation),
        None => SchedParams::BestEffort {
            weight: config.weight,
        },
    }
}

/// The host CPUs `own` as the policy numbers those of the pool, which are `cpus`.
fn in_pool(own: &[usize], cpus: &[usize]) -> CpuSet {
    (0..)
        .zip(cpus)
        .filter(|(_, cpu)| own.contains(cpu))
        .map(|(number, _)| CpuId(number))
        .collect()
}
