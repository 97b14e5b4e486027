//! Admission control: a reservation is admitted only if all that were admitted can still be kept.
//!
//! The promise under global EDF on m CPUs is bandwidth with bounded tardiness (Devi and Anderson,
//! RTSS 2005): the sum of Q/D must not exceed m times the cap. On one CPU that is the exact EDF
//! test, and no deadline is missed (Liu and Layland 1973). With pinning, the same must hold for the
//! CPUs of every pinning set alone, counting the vCPUs that can run nowhere else.
//!
//! Bandwidth that becomes free, because a vCPU is removed, gets a smaller reservation or other CPUs, is *held*
//! for a while, because what was reserved is in force until then or has been used in advance
//! ([`Server::used_until`], [`Server::zero_lag`]). So the sum of what is in force never exceeds the cap, during
//! changes either.
//!
//! [`Server::used_until`]: crate::classes::cbs::Server::used_until
//! [`Server::zero_lag`]: crate::classes::cbs::Server::zero_lag

use crate::classes::reservation::{MIN_BUDGET, Reservation};
use crate::cpuset::CpuSet;
use crate::ids::{Ns, VcpuId};
use crate::normal_form::{Normalise, Writer};

/// Bandwidth is counted in parts of 2^40.
const UNIT: u64 = 1 << 40;
/// Each density is rounded up by less than one part. With this much slack, a millionth of a CPU, a full set
/// of vCPUs that fits without rounding fits.
const SLACK: u64 = crate::ids::MAX_VCPUS as u64;
/// Thousandths of a CPU that reservations may take together where some of them had to be reduced: the
/// thousandths left are for best effort, which gives way first.
const REDUCED_CAP: u64 = 990;
/// Thousandths of a CPU that reduced reservations have together at least, whatever is kept beside them.
const LEAST_REDUCED: u64 = 10;

/// A vCPU was not admitted, or not with what it was to get.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// The reservation does not fit beside the others.
    #[error(
        "this reservation needs {}.{} % of a CPU, but {cpus} CPU(s) have only {}.{} % left; {}",
        wanted_permille / 10, wanted_permille % 10, free_permille / 10, free_permille % 10,
        what_fits(*fitting_budget_ns)
    )]
    NoBandwidth {
        /// Requested share of a CPU, thousandths, to the nearest.
        wanted_permille: u64,
        /// Share that is left, thousandths, rounded down.
        free_permille: u64,
        /// CPUs among which the bandwidth is missing.
        cpus: u32,
        /// The longest budget that fits with the same period and deadline, ns.
        fitting_budget_ns: u64,
    },
    /// The vCPU does not exist, or has ended.
    #[error("there is no vCPU {0} any longer; name one that runs")]
    NoVcpu(VcpuId),
    /// The policy takes no reservations.
    #[error("this policy has no reservations; leave them out, or take the policy deadline")]
    NoReservations,
    /// The vCPU is pinned to CPUs that are not of the pool.
    #[error("the vCPU is pinned to no CPU of the pool; name at least one of its CPUs")]
    NoCpu,
    /// The pool has the most vCPUs that it can have.
    #[error(
        "one pool has at most {0} vCPUs; give fewer, or run some with other host CPUs by another baton run"
    )]
    TooManyVcpus(usize),
    /// The pool has the most different pinnings that it can have.
    #[error("more than {0} different pinnings in one pool; use fewer")]
    TooManyPinnings(usize),
}

/// The advice for a reservation that does not fit: a budget that does, if that is long enough.
fn what_fits(budget: Ns) -> String {
    if budget < MIN_BUDGET {
        return "no budget fits in the same period, so reserve less for others or give more host CPUs"
            .to_owned();
    }
    format!(
        "a budget of at most {}us in the same period fits",
        budget / 1000
    )
}

/// Reserved share of a CPU in units of 2^-40, rounded up so that sums never understate.
pub(crate) fn density(reservation: &Reservation) -> u64 {
    let scaled = u128::from(reservation.budget()) * u128::from(UNIT);
    scaled.div_ceil(u128::from(reservation.deadline())) as u64
}

/// Bandwidth that a vCPU no longer needs and that is not free yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// The vCPU, while it exists.
    pub(crate) vcpu: Option<VcpuId>,
    /// Where it could run with it.
    pub(crate) allowed: CpuSet,
    /// In 2^40ths of a CPU.
    pub(crate) density: u64,
    /// Where the vCPU has the same bandwidth now: it has it once, wherever both are counted.
    pub(crate) moved_to: Option<CpuSet>,
    /// When it is free, ns.
    pub(crate) until: Ns,
}

impl Held {
    fn counts(&self, is_within: impl Fn(CpuSet) -> bool) -> bool {
        let has_moved = self.moved_to.is_some_and(&is_within);
        is_within(self.allowed) && !has_moved
    }
}

/// What has been admitted.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    cap_permille: u64,
    /// For each pinning set, which may name CPUs that the pool does not have at the moment, the sum of what was taken with it.
    taken: Vec<(CpuSet, u64)>,
    held: Vec<Held>,
}

impl Admission {
    pub(crate) fn new(cap_permille: u64) -> Self {
        Self {
            cap_permille: cap_permille.min(1000),
            taken: Vec::new(),
            held: Vec::new(),
        }
    }

    /// The same rules, with nothing admitted.
    pub(crate) fn emptied(&self) -> Self {
        Self::new(self.cap_permille)
    }

    /// Adds `reservation` whether it fits or not.
    pub(crate) fn add(&mut self, reservation: &Reservation, allowed: CpuSet) {
        let wanted = density(reservation);
        match self.taken.iter_mut().find(|(set, _)| *set == allowed) {
            Some((_, sum)) => *sum += wanted,
            None => self.taken.push((allowed, wanted)),
        }
    }

    /// The sum for the vCPUs that can run nowhere but on `bound`, as long as the pool has the CPUs `all`.
    fn within(&self, bound: CpuSet, all: CpuSet) -> u64 {
        let is_within = |set: CpuSet| set.and(all).is_subset(bound);
        let within = self.taken.iter().filter(|&&(set, _)| is_within(set));
        let held = self.held.iter().filter(|held| held.counts(is_within));
        let taken: u64 = within.map(|&(_, sum)| sum).sum();
        taken + held.map(|held| held.density).sum::<u64>()
    }

    /// Bandwidth is held, if there is any and it is not free at `now`.
    pub(crate) fn hold(&mut self, held: Held, now: Ns) {
        if held.density > 0 && held.until > now {
            self.held.push(held);
        }
    }

    /// Frees what is held until `now`. Returns when all of the rest is free, ns.
    pub(crate) fn free_held(&mut self, now: Ns) -> Option<Ns> {
        self.held.retain(|held| held.until > now);
        self.held.iter().map(|held| held.until).max()
    }

    /// Frees what is held because `vcpu`, which has not moved since, got a smaller reservation on `allowed`.
    /// No more than `most` is freed. Returns how much that is, in 2^40ths of a CPU.
    pub(crate) fn free_held_of(&mut self, vcpu: VcpuId, allowed: CpuSet, most: u64) -> u64 {
        let is_own = |held: &&mut Held| {
            held.vcpu == Some(vcpu) && held.allowed == allowed && held.moved_to.is_none()
        };
        let mut freed = 0;
        for held in self.held.iter_mut().filter(is_own) {
            let part = held.density.min(most - freed);
            held.density -= part;
            freed += part;
        }
        self.held.retain(|held| held.density > 0);
        freed
    }

    /// `vcpu` takes this density on `allowed`. What is held there because it left these CPUs before is free if it is
    /// no more than that: the vCPU has one budget, which it uses once.
    pub(crate) fn come_back(&mut self, vcpu: VcpuId, allowed: CpuSet, density: u64) {
        self.held.retain(|held| {
            let is_own = held.vcpu == Some(vcpu) && held.allowed == allowed;
            !(is_own && held.moved_to.is_some() && held.density <= density)
        });
    }

    /// The name of `vcpu` is free.
    pub(crate) fn forget(&mut self, vcpu: VcpuId) {
        let own = self.held.iter_mut().filter(|held| held.vcpu == Some(vcpu));
        own.for_each(|held| held.vcpu = None);
    }

    /// What is held.
    pub(crate) fn held(&self) -> &[Held] {
        &self.held
    }

    /// What was taken with this pinning, in 2^40ths of a CPU.
    pub(crate) fn taken_with(&self, allowed: CpuSet) -> u64 {
        let with = self.taken.iter().filter(|(set, _)| *set == allowed);
        with.map(|&(_, sum)| sum).sum()
    }

    /// A set of the pool's CPUs `all` on which more is taken and held than the cap permits.
    pub(crate) fn first_overbooked(&self, all: CpuSet) -> Option<CpuSet> {
        let taken = self.taken.iter().map(|&(set, _)| set);
        let bounds = taken
            .chain(self.held.iter().map(|held| held.allowed))
            .chain([all]);
        let mut bounds = bounds.map(|bound| bound.and(all));
        bounds.find(|&bound| self.within(bound, all) > self.cap(bound))
    }

    /// What is taken and held on `bound` of the pool's CPUs `all`, rounded up, and what may be, rounded down, in
    /// thousandths of a CPU.
    pub(crate) fn permille(&self, bound: CpuSet, all: CpuSet) -> (u64, u64) {
        let permille = UNIT / 1000;
        let fits = u64::from(bound.len()) * self.cap_permille;
        (self.within(bound, all).div_ceil(permille), fits)
    }

    fn cap(&self, bound: CpuSet) -> u64 {
        u64::from(bound.len()) * (UNIT / 1000 * self.cap_permille) + SLACK
    }

    /// What is left beside `self` for the reservations in `reduced`: the part, in 2^40ths, of a reservation
    /// that may run on `allowed` of the pool's CPUs `all`. All that share a bottleneck get the same part.
    pub(crate) fn part_of_rest(&self, reduced: &Self, allowed: CpuSet, all: CpuSet) -> u64 {
        let bounds = self.taken.iter().chain(&reduced.taken).map(|&(set, _)| set);
        let bounds = bounds.chain([all]).map(|set| set.and(all));
        let bounds = bounds.filter(|&set| allowed.and(all).is_subset(set));
        let part = |bound: CpuSet| {
            let cpus = u64::from(bound.len()) * (UNIT / 1000);
            let room = (cpus * REDUCED_CAP).saturating_sub(self.within(bound, all));
            let room = room.max(cpus * LEAST_REDUCED);
            let wanted = reduced.within(bound, all).max(1);
            (u128::from(room) * u128::from(UNIT) / u128::from(wanted)).min(u128::from(UNIT))
        };
        bounds.map(part).min().unwrap_or(0) as u64
    }

    /// Adds `reservation` on the CPUs `allowed` of the pool's CPUs `all`, if it fits.
    pub(crate) fn take(
        &mut self,
        reservation: &Reservation,
        allowed: CpuSet,
        all: CpuSet,
    ) -> Result<(), AdmissionError> {
        let wanted = density(reservation);
        // Every set that contains the allowed CPUs has to have room for it, and so has the pool.
        let taken = self.taken.iter().map(|&(set, _)| set);
        let held = self.held.iter().map(|held| held.allowed);
        let bounds = taken.chain(held).chain([allowed, all]);
        let bounds = bounds.map(|bound| bound.and(all));
        for bound in bounds.filter(|&bound| allowed.and(all).is_subset(bound)) {
            let taken = self.within(bound, all);
            let free = self.cap(bound).saturating_sub(taken);
            if wanted > free {
                let fitting = u128::from(free.min(UNIT)) * u128::from(reservation.deadline());
                return Err(AdmissionError::NoBandwidth {
                    wanted_permille: (wanted + UNIT / 2000) / (UNIT / 1000),
                    free_permille: free / (UNIT / 1000),
                    cpus: bound.len(),
                    fitting_budget_ns: (fitting / u128::from(UNIT)) as u64,
                });
            }
        }
        self.add(reservation, allowed);
        Ok(())
    }

    /// Gives back what [`Admission::take`] took.
    pub(crate) fn give_back(&mut self, reservation: &Reservation, allowed: CpuSet) {
        if let Some((_, sum)) = self.taken.iter_mut().find(|(set, _)| *set == allowed) {
            *sum = sum.saturating_sub(density(reservation));
        }
        self.taken.retain(|&(_, sum)| sum > 0);
    }
}

impl Normalise for Held {
    fn normalise(&self, to: &mut Writer) {
        let &Self {
            vcpu,
            allowed,
            density,
            moved_to,
            until,
        } = self;
        to.option(vcpu, Writer::vcpu);
        to.cpus(allowed);
        to.number(density);
        to.option(moved_to, Writer::cpus);
        to.future(until);
    }
}

impl Normalise for Admission {
    fn normalise(&self, to: &mut Writer) {
        let Self {
            cap_permille,
            taken,
            held,
        } = self;
        to.number(*cap_permille);
        let bits = |set: CpuSet| set.iter().map(|cpu| 1_u128 << cpu.0).sum::<u128>();
        let mut taken = taken.clone();
        taken.sort_unstable_by_key(|&(set, _)| bits(set));
        to.list(taken, |to, (set, sum)| {
            to.cpus(set);
            to.number(sum);
        });
        let mut held: Vec<_> = held.iter().filter(|held| held.until > to.now()).collect();
        held.sort_by_key(|held| (held.vcpu, bits(held.allowed), held.until, held.density));
        to.list(held, |to, held| to.part(held));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::CpuId;

    const MS: u64 = 1_000_000;

    fn take(a: &mut Admission, q: u64, p: u64, allowed: CpuSet) -> Result<(), AdmissionError> {
        a.take(
            &Reservation::hard(q * MS, p * MS).unwrap(),
            allowed,
            CpuSet::first(2),
        )
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_would() {
        let mut a = Admission::new(1000);
        take(&mut a, 10, 10, CpuSet::first(2)).unwrap();
        take(&mut a, 6, 10, CpuSet::first(2)).unwrap();
        let Err(AdmissionError::NoBandwidth {
            fitting_budget_ns, ..
        }) = take(&mut a, 5, 10, CpuSet::first(2))
        else {
            panic!("5/10 does not fit into 4/10")
        };
        assert!(
            (3_999_000..=4_000_100).contains(&fitting_budget_ns),
            "{fitting_budget_ns}"
        );
        a.take(
            &Reservation::hard(fitting_budget_ns, 10 * MS).unwrap(),
            CpuSet::first(2),
            CpuSet::first(2),
        )
        .expect("what the error advises fits");
    }

    #[test]
    fn a_budget_that_is_advised_is_one_that_is_taken() {
        let refused = |taken: Ns| {
            let mut a = Admission::new(1000);
            let one = CpuSet::first(1);
            let most = Reservation::hard(taken, 10 * MS).unwrap();
            a.take(&most, one, one).unwrap();
            take(&mut a, 5, 10, one).expect_err("full").to_string()
        };
        assert!(refused(10 * MS - 11_000).contains("at most 11us in the same period fits"));
        let none = refused(10 * MS - 9_000);
        assert!(
            none.contains("no budget fits"),
            "9us would be refused: {none}"
        );
        assert!(!none.contains("at most"), "{none}");
    }

    #[test]
    fn a_pinned_cpu_cannot_be_overbooked_though_the_pool_has_room() {
        let mut a = Admission::new(1000);
        let cpu0 = CpuSet::only(CpuId(0));
        take(&mut a, 6, 10, cpu0).unwrap();
        assert!(take(&mut a, 6, 10, cpu0).is_err());
        take(&mut a, 6, 10, CpuSet::first(2)).unwrap();
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let mut a = Admission::new(1000);
        let r = Reservation::hard(10 * MS, 10 * MS).unwrap();
        let one = CpuSet::first(1);
        a.take(&r, one, one).unwrap();
        assert!(a.take(&r, one, one).is_err());
        a.give_back(&r, one);
        a.take(&r, one, one).unwrap();
    }

    #[test]
    fn what_is_held_is_counted_until_it_is_free() {
        let mut a = Admission::new(1000);
        let one = CpuSet::first(1);
        let held = Held {
            vcpu: Some(VcpuId(0)),
            allowed: one,
            density: UNIT / 2,
            moved_to: None,
            until: 7,
        };
        a.hold(held, 6);
        assert!(take(&mut a, 6, 10, one).is_err());
        assert_eq!((a.free_held(6), a.free_held(7)), (Some(7), None));
        take(&mut a, 6, 10, one).unwrap();
        a.hold(held, 7);
        take(&mut a, 4, 10, one).unwrap();
    }

    #[test]
    fn what_has_moved_is_counted_once_where_both_places_are() {
        let mut a = Admission::new(1000);
        let [cpu0, cpu1] = [0, 1].map(|cpu| CpuSet::only(CpuId(cpu)));
        take(&mut a, 6, 10, cpu1).unwrap();
        a.hold(
            Held {
                vcpu: Some(VcpuId(0)),
                allowed: cpu0,
                density: UNIT / 10 * 6,
                moved_to: Some(cpu1),
                until: 7,
            },
            0,
        );
        assert!(take(&mut a, 5, 10, cpu0).is_err());
        take(&mut a, 4, 10, cpu0).unwrap();
        take(&mut a, 4, 10, cpu1).unwrap();
        take(&mut a, 6, 10, CpuSet::first(2)).unwrap();
    }

    #[test]
    fn the_cap_keeps_a_rest_for_best_effort() {
        let mut a = Admission::new(950);
        assert!(take(&mut a, 96, 100, CpuSet::first(1)).is_err());
        take(&mut a, 95, 100, CpuSet::first(1)).unwrap();
    }
}
