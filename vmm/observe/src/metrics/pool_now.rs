//! Which host CPUs of the pool can be used, and what is kept of reservations meanwhile: gauges, for alerts.

use vcpu_sched::{Doing, Events, Scheduler, VcpuId};

use super::families::{Family, Labels, Samples};

/// The pool at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolNow {
    /// Of each host CPU: whether it can be used.
    pub usable: Vec<bool>,
    /// Of each vCPU: the part of its reservation that is in force, 1 if it is kept; `None` without one.
    pub kept: Vec<Option<f64>>,
}

impl PoolNow {
    /// What is kept of the reservations of so many vCPUs.
    pub fn of<E: Events>(sched: &Scheduler<E>, vcpus: usize) -> Self {
        let vcpus = (0..vcpus as u32).map(VcpuId);
        Self {
            usable: Vec::new(),
            kept: vcpus.map(|vcpu| kept(sched, vcpu)).collect(),
        }
    }

    pub(super) fn families(&self, cpus: &[Labels], vcpus: &[Labels]) -> [Family; 2] {
        let usable = self.usable.iter();
        let usable = usable.map(|&usable| f64::from(u8::from(usable)));
        let kept = vcpus.iter().cloned().zip(&self.kept);
        let kept = kept.filter_map(|(labels, kept)| Some((labels, (*kept)?)));
        [
            Family {
                name: "executor_available".to_owned(),
                help: "1 while the host CPU can be used, 0 while it is offline or not for this process",
                samples: Samples::Gauges(cpus.iter().cloned().zip(usable).collect()),
            },
            Family {
                name: "vcpu_reservation_kept_ratio".to_owned(),
                help: "The part of the reservation that is in force: less than 1 while host CPUs are away",
                samples: Samples::Gauges(kept.collect()),
            },
        ]
    }
}

fn kept<E: Events>(sched: &Scheduler<E>, vcpu: VcpuId) -> Option<f64> {
    let view = sched.view(vcpu).filter(|view| view.doing != Doing::Gone)?;
    let share = |r: &vcpu_sched::Reservation| r.budget() as f64 / r.deadline() as f64;
    let (promised, ..) = view.reserved?;
    let part = |(reduced, _)| share(&reduced) / share(&promised);
    Some(view.reduced.map_or(1.0, part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vcpu_sched::{Config, CpuId, Reservation, SchedParams};

    #[test]
    fn the_part_of_a_reservation_that_is_in_force_is_told() {
        let mut sched = Scheduler::new(Config::new(2));
        let claim = SchedParams::Reserved(Reservation::hard(8_000_000, 10_000_000).expect("valid"));
        for claim in [claim, claim, SchedParams::BestEffort { weight: 100 }] {
            let guest = sched.add_guest();
            sched.add_vcpu(guest, claim, None).expect("fits");
        }
        assert_eq!(PoolNow::of(&sched, 3).kept, [Some(1.0), Some(1.0), None]);
        sched.cpu_offline(CpuId(1), 0);
        let now = PoolNow::of(&sched, 3);
        assert_eq!((now.kept[0], now.kept[2]), (Some(1.0), None));
        let second = now.kept[1].expect("reserved");
        assert!((second - 19.0 / 80.0).abs() < 1e-6, "{second}");
    }
}
