//! What is reported to the user when host CPUs of the pool cannot be used any more, or can be used again.

use std::fs;

use baton_config::units::format_cpus;
use baton_observe::trace::VcpuName;
use vcpu_sched::{Doing, Reservation, VcpuView};

use super::guest_names::GuestNames;
use super::pool_state::PoolState;

/// What the pool's present CPUs mean for one vCPU.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct VcpuEffect {
    name: VcpuName,
    reserved: bool,
    /// The part of its reservation that is in force, if that is reduced.
    part: Option<f64>,
    displaced: bool,
}

/// The same for each vCPU of the pool, as it is copied under the pool's lock.
pub(super) struct Effects {
    guests: GuestNames,
    views: Vec<Option<VcpuView>>,
}

/// What the pool's present CPUs mean for each vCPU.
pub(super) fn effects(state: &PoolState) -> Effects {
    let guests = state.names();
    let vcpus = guests.vcpus().into_iter();
    let views = vcpus.map(|id| state.sched.view(id)).collect();
    Effects { guests, views }
}

impl Effects {
    /// The effects on vCPUs that have not ended, with names.
    pub(super) fn named(self) -> Vec<VcpuEffect> {
        let vcpus = self.guests.vcpu_names().into_iter().zip(self.views);
        let effects = vcpus.filter_map(|(name, view)| {
            let view = view.filter(|view| view.doing != Doing::Gone)?;
            let share = |r: &Reservation| r.budget() as f64 / r.deadline() as f64;
            let promised = view.reserved.map(|(promised, ..)| share(&promised));
            let part = view.reduced.map(|(reduced, _)| share(&reduced));
            Some(VcpuEffect {
                name,
                reserved: promised.is_some(),
                part: promised.zip(part).map(|(promised, part)| part / promised),
                displaced: view.displaced,
            })
        });
        effects.collect()
    }
}

/// The host CPUs as the subject or object of a sentence.
pub(super) fn name_cpus(host_cpus: &[usize]) -> String {
    let plural = if host_cpus.len() == 1 { "" } else { "s" };
    format!("host CPU{plural} {}", format_cpus(host_cpus))
}

/// The host CPUs and their verb.
pub(super) fn cpus_are(host_cpus: &[usize]) -> String {
    let verb = if host_cpus.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", name_cpus(host_cpus))
}

/// The host CPUs `gone` cannot be used any more, and `left` still can.
pub(super) fn cpus_went(gone: &[usize], left: &[usize]) -> String {
    let offline = |cpu: &usize| {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/online");
        fs::read_to_string(path).is_ok_and(|online| online.trim() == "0")
    };
    let why = match gone.iter().all(offline) {
        true => "offline",
        false => "not to be used any more (by the cpuset or the affinity of this process)",
    };
    let goes_on = match left {
        [] => "no CPU of the pool is left: guests run where the host's kernel lets them, and no \
               reservation can be relied on"
            .to_owned(),
        left => format!("the pool goes on with {}", name_cpus(left)),
    };
    format!("{} {why}; {goes_on}", cpus_are(gone))
}

/// What that means for guests: one sentence for each guest that is concerned.
pub(super) fn consequences(vcpus: &[VcpuEffect], all_present: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for guest in vcpus.chunk_by(|a, b| a.name.guest == b.name.guest) {
        let name = &guest[0].name.guest_name;
        let parts = guest.iter().filter_map(|vcpu| vcpu.part);
        if let Some(least) = parts.min_by(f64::total_cmp) {
            lines.push(format!(
                "guest {name} cannot keep its reservations on the host CPUs that are left: they are \
                 reduced to {:.1} % until more are back",
                least * 100.0
            ));
        }
        let displaced = guest.iter().filter(|vcpu| vcpu.displaced);
        let displaced: Vec<usize> = displaced.map(|vcpu| vcpu.name.index as usize).collect();
        if !displaced.is_empty() {
            let (plural, verb, runs) = match displaced.len() {
                1 => ("", "is", "runs"),
                _ => ("s", "are", "run"),
            };
            lines.push(format!(
                "guest {name}: vCPU{plural} {} {verb} pinned to host CPUs that are away, and {runs} \
                 elsewhere until one is back",
                format_cpus(&displaced)
            ));
        }
    }
    let reserved = vcpus.iter().any(|vcpu| vcpu.reserved);
    let reduced = vcpus.iter().any(|vcpu| vcpu.part.is_some());
    if reserved && !reduced {
        let where_ = if all_present {
            ""
        } else {
            " on the host CPUs that are left"
        };
        lines.push(format!("all reservations are kept{where_}"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(guest: usize, index: u32) -> VcpuName {
        VcpuName {
            guest,
            guest_name: ["db", "web"][guest].to_owned(),
            index,
        }
    }

    fn effect(name: VcpuName, part: Option<f64>, displaced: bool) -> VcpuEffect {
        VcpuEffect {
            name,
            reserved: true,
            part,
            displaced,
        }
    }

    #[test]
    fn each_guest_whose_reservations_are_reduced_is_named_with_what_is_left_of_them() {
        let vcpus = [
            effect(name(0, 0), None, false),
            effect(name(1, 0), Some(0.2375), false),
            effect(name(1, 1), Some(0.5), true),
        ];
        let lines = consequences(&vcpus, false);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("guest web") && lines[0].contains("23.8 %"));
        assert!(
            lines[1].contains("guest web: vCPU 1 is pinned"),
            "{lines:?}"
        );
    }

    #[test]
    fn when_nothing_is_reduced_that_is_reported_and_without_reservations_nothing_is() {
        let mut vcpus = [effect(name(0, 0), None, false)];
        assert_eq!(consequences(&vcpus, true), ["all reservations are kept"]);
        vcpus[0].reserved = false;
        assert!(consequences(&vcpus, true).is_empty());
    }

    #[test]
    fn a_pool_without_a_cpu_is_reported_to_keep_no_reservation() {
        assert!(cpus_went(&[1, 2], &[0]).ends_with("the pool goes on with host CPU 0"));
        let none = cpus_went(&[0], &[]);
        assert!(none.contains("no reservation can be relied on"), "{none}");
    }
}
