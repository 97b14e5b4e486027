//! Changes of guests that run: all of a change is in force, or nothing.

use baton_api::{CheckedChange, EventKind, Guest, GuestChange};
use baton_config::DEFAULT_WEIGHT;
use baton_config::units::{format_cpus, parse_cpus};
use baton_host::executor::{GuestIdentity, VcpuChange};
use baton_os::peer::Peer;
use vcpu_sched::SchedParams;

use crate::failure::{Failure, FailureKind};
use crate::grants::{Rights, VcpuClaim};
use crate::service::Service;

impl Service {
    /// Changes the guest `name`. Returns the guest as it is then.
    ///
    /// # Errors
    /// If the change makes no sense, `peer` may not, or the policy cannot keep it; then all is as before.
    pub fn change(&self, peer: &Peer, name: &str, change: &GuestChange) -> Result<Guest, Failure> {
        let target = self.target(peer, name)?;
        let change = change.check()?;
        let host_cpus = self.host_cpus_of(&change)?;
        self.edit(&target.identity, (peer, &target.rights), |claims| {
            apply(&change, host_cpus.as_ref(), name, claims)
        })?;
        self.guest_with(&target.identity)
    }

    /// The host CPUs that `change` names.
    fn host_cpus_of(&self, change: &CheckedChange) -> Result<Option<Option<Vec<usize>>>, Failure> {
        let Some(Some(text)) = &change.host_cpus else {
            return Ok(change.host_cpus.as_ref().map(|_| None));
        };
        let senseless = |what: String| Failure::new(FailureKind::Senseless, what);
        let cpus = parse_cpus(text).map_err(|error| senseless(error.to_string()))?;
        let has = self.host_cpus.list();
        match cpus.iter().find(|cpu| !has.contains(cpu)) {
            Some(cpu) => Err(senseless(format!(
                "host CPU {cpu} is not one of the pool, which has {}",
                format_cpus(&has)
            ))),
            None => Ok(Some(Some(cpus))),
        }
    }

    /// Gives the vCPUs of `guest` what `edit` makes of what they have, within the rights of its user.
    pub(crate) fn edit(
        &self,
        guest: &GuestIdentity,
        (peer, rights): (&Peer, &Rights),
        edit: impl FnOnce(&mut Vec<VcpuClaim>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.one_at_a_time(|| {
            let before = self.claims_of(guest)?;
            let mut after = before.clone();
            edit(&mut after)?;
            if let Rights::Granted(terms) = rights {
                for claim in &mut after {
                    claim.host_cpus = terms.host_cpus(claim.host_cpus.take());
                }
                terms.check(self.usage_of(peer.uid, Some(guest)), &after)?;
            }
            self.replace(guest, &before, &after)?;
            self.processes
                .of(guest, |process| process.show_claims(&after));
            Ok::<(), Failure>(())
        })?;
        let guest = guest.name().to_owned();
        self.events
            .publish_of(peer.uid, EventKind::Changed { guest });
        Ok(())
    }

    /// Gives the vCPUs of `guest`, which have `before`, what is in `after`.
    fn replace(
        &self,
        guest: &GuestIdentity,
        before: &[VcpuClaim],
        after: &[VcpuClaim],
    ) -> Result<(), Failure> {
        for (index, (old, new)) in (0..).zip(before.iter().zip(after)) {
            if let Err(error) = self.replace_one(guest, index, old, new) {
                for (index, (old, new)) in (0..=index).zip(before.iter().zip(after)) {
                    // What the vCPU had a moment ago is still held for it.
                    let _ = self.replace_one(guest, index, new, old);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn replace_one(
        &self,
        guest: &GuestIdentity,
        index: u32,
        old: &VcpuClaim,
        new: &VcpuClaim,
    ) -> Result<(), Failure> {
        if old.host_cpus != new.host_cpus {
            let change = VcpuChange::HostCpus(new.host_cpus.clone());
            self.handle.set(guest, Some(index), &change)?;
        }
        if old.params != new.params {
            let change = match new.params {
                SchedParams::Reserved(reservation) => VcpuChange::Reservation(reservation),
                SchedParams::BestEffort { weight } => VcpuChange::Weight(weight),
            };
            self.handle.set(guest, Some(index), &change)?;
        }
        Ok(())
    }
}

/// Makes `change` of what the vCPUs of the guest `name` have.
fn apply(
    change: &CheckedChange,
    host_cpus: Option<&Option<Vec<usize>>>,
    name: &str,
    claims: &mut [VcpuClaim],
) -> Result<(), Failure> {
    let senseless = |what: String| Failure::new(FailureKind::Senseless, what);
    let count = claims.len();
    let chosen = match change.vcpu {
        None => &mut claims[..],
        Some(index) => match claims.get_mut(index as usize) {
            Some(claim) => std::slice::from_mut(claim),
            None => {
                return Err(senseless(format!(
                    "guest {name} has no vCPU {index}; its vCPUs are 0 to {}",
                    count.saturating_sub(1)
                )));
            }
        },
    };
    let mut has_weight = change.weight.is_none();
    for claim in chosen {
        if let Some(host_cpus) = host_cpus {
            claim.host_cpus.clone_from(host_cpus);
        }
        match change.reservation {
            Some(Some(reservation)) => claim.params = SchedParams::Reserved(reservation),
            Some(None) if matches!(claim.params, SchedParams::Reserved(_)) => {
                claim.params = SchedParams::BestEffort {
                    weight: DEFAULT_WEIGHT,
                };
            }
            Some(None) | None => {}
        }
        if let (SchedParams::BestEffort { weight: own }, Some(weight)) =
            (&mut claim.params, change.weight)
        {
            *own = weight;
            has_weight = true;
        }
    }
    match has_weight {
        true => Ok(()),
        false => Err(senseless(
            "a vCPU with a reservation has no weight; take its reservation away too (none)"
                .to_owned(),
        )),
    }
}
