//! Which host CPUs of the pool can be used, and how much of the reservations is in force meanwhile: gauges, for
//! alerts.

use vcpu_sched::{Doing, Events, Policy, VcpuId};

/// The pool at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolNow {
    /// For each host CPU, whether it can be used.
    pub usable: Vec<bool>,
    /// For each vCPU, the part of its reservation that is in force: 1 unless it was reduced. `None` if it has no
    /// reservation.
    pub kept: Vec<Option<f64>>,
}

impl PoolNow {
    /// How much of the reservations of `vcpus` is in force; `usable` is empty.
    pub fn of<E: Events>(sched: &dyn Policy<E>, vcpus: &[VcpuId]) -> Self {
        let vcpus = vcpus.iter();
        Self {
            usable: Vec::new(),
            kept: vcpus.map(|&vcpu| kept(sched, vcpu)).collect(),
        }
    }
}

/// The part of the reservation of `vcpu` that is in force, if it has one.
fn kept<E: Events>(sched: &dyn Policy<E>, vcpu: VcpuId) -> Option<f64> {
    let view = sched.view(vcpu).filter(|view| view.doing != Doing::Gone)?;
    let share = |r: &vcpu_sched::Reservation| r.budget() as f64 / r.deadline() as f64;
    let (promised, ..) = view.reserved?;
    let part = |(reduced, _)| share(&reduced) / share(&promised);
    Some(view.reduced.map_or(1.0, part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vcpu_sched::{Config, CpuId, Reservation, SchedParams, Scheduler};

    #[test]
    fn the_part_of_a_reservation_that_is_in_force_is_measured() {
        let mut sched = Scheduler::new(Config::new(2));
        let reserved =
            SchedParams::Reserved(Reservation::hard(8_000_000, 10_000_000).expect("valid"));
        for params in [reserved, reserved, SchedParams::BestEffort { weight: 100 }] {
            let guest = sched.add_guest();
            sched.add_vcpu(guest, params, None).expect("fits");
        }
        let vcpus = [0, 1, 2].map(VcpuId);
        assert_eq!(
            PoolNow::of(&sched, &vcpus).kept,
            [Some(1.0), Some(1.0), None]
        );
        sched.cpu_offline(CpuId(1), 0);
        let now = PoolNow::of(&sched, &vcpus);
        assert_eq!((now.kept[0], now.kept[2]), (Some(1.0), None));
        let second = now.kept[1].expect("reserved");
        assert!((second - 19.0 / 80.0).abs() < 1e-6, "{second}");
    }
}
