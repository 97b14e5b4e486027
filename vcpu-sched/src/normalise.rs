//! The normal form of the whole policy: what a search through its states takes for one and the same state.
//!
//! Left out is what decides nothing: the counters, and since when something has lasted that is only counted. Numbers
//! that only rise are replaced by the order in which they are. vCPUs that could take each other's place are told
//! apart all the same, because ties are broken by their numbers.

use crate::classes::sched_class::SchedClass;
use crate::events::Events;
use crate::ids::{Ns, VcpuId};
use crate::normal_form::{NormalForm, Origins, Writer};
use crate::scheduler::Scheduler;
use crate::state::contexts::{ExecState, ScState, Standing, VcpuState};

/// So many of the longest period or slice back, points in time are told apart. In virtual time, two slices suffice: no
/// tag stays further behind than the slice before last (`FairShare::charge`).
const HORIZON: u64 = 4;

/// The normal form of `policy` at `now`, ns.
#[must_use]
pub fn normal_form<E: Events>(policy: &Scheduler<E>, now: Ns) -> NormalForm {
    let mut to = Writer::new(origins(policy, now));
    to.part(&policy.cpus);
    for vcpu in policy.vcpus.place_ids() {
        to.option(policy.vcpus.get(vcpu), |to, v| {
            v.normalise(&standing(policy, vcpu, v), to);
            policy.domains[v.ec.domain].timers.normalise(vcpu, to);
            policy.blocked_on.normalise(vcpu, to);
            policy.parked.normalise(vcpu, to);
        });
    }
    let guests = policy.guests.len() as u64;
    for guest in policy.guests.place_ids() {
        to.option(policy.guests.get(guest), |to, row| {
            let before = policy.guests.iter().filter(|g| g.added_seq < row.added_seq);
            to.size(before.count());
            row.normalise(guests, to);
        });
    }
    for domain in policy.domains.place_ids() {
        to.option(policy.domains.get(domain), |to, row| row.normalise(to));
    }
    to.part(&policy.admission);
    to.part(&policy.workers);
    to.finish()
}

fn origins<E: Events>(policy: &Scheduler<E>, now: Ns) -> Origins {
    let servers = policy.vcpus.iter().filter_map(|v| v.sc.class.server());
    let periods = servers.map(|server| server.admitted().period().max(server.promised().period()));
    let config = &policy.config;
    let longest = periods.max().unwrap_or(0);
    let longest = longest.max(config.slice_ns).max(config.park_ns);
    let sharers = policy.vcpus.places().max(1) as u64;
    let slowest = policy.vcpus.iter().filter_map(|v| match &v.sc.class {
        SchedClass::Fair(fair) => Some(fair.longest_slice(config.slice_ns, sharers as u32)),
        SchedClass::Deadline(_) => None,
    });
    let moments = policy.domains.iter().map(|domain| domain.virtual_time.0);
    Origins {
        now,
        horizon: longest.saturating_mul(HORIZON),
        virtual_now: moments.max().unwrap_or(0),
        virtual_horizon: slowest.max().unwrap_or(0) * 2,
    }
}

/// Where `vcpu` stands among the others.
fn standing<E: Events>(policy: &Scheduler<E>, vcpu: VcpuId, v: &VcpuState) -> Standing {
    let others = || {
        let ids = policy.vcpus.ids().filter(move |&other| other != vcpu);
        ids.map(|other| &policy.vcpus[other])
    };
    let competes = |v: &VcpuState| {
        matches!(
            v.sc.state,
            ScState::Queued(_) | ScState::OnCpu(_) | ScState::Proxied
        )
    };
    // Deadlines and tags that differ decide by themselves. Where virtual times are aligned, tags become equal.
    let several = policy.domains.len() > 1;
    let ties = |other: &&VcpuState| {
        competes(other) && (several || v.sc.class.rank(0) == other.sc.class.rank(0))
    };
    let before = others()
        .filter(ties)
        .filter(|other| other.sc.fifo_seq < v.sc.fifo_seq);
    let fifo = if competes(v) { before.count() } else { 0 };
    // This is of interest for suspicions alone.
    let since = |v: &VcpuState| match v.ec.state {
        ExecState::Runnable { since } if v.ec.hints.is_guess => Some(since),
        _ => None,
    };
    let own = since(v);
    let mut longer: Vec<_> = others()
        .filter_map(since)
        .filter(|&s| own > Some(s))
        .collect();
    longer.sort_unstable();
    longer.dedup();
    Standing {
        fifo,
        since: longer.len(),
        host_taken: policy.host_taken_from(vcpu),
    }
}
