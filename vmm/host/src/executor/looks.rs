//! When a vCPU is looked at that publishes no hints and rings no doorbell.
//!
//! A look is an exit, by the timer, and a few reads. A vCPU whose preemption is deferred, or that runs only
//! until it has released a lock, is looked at often, because the time is not its own. A vCPU that runs for
//! itself is looked at to find out whether it only spins. The time from look to look doubles, so that the looks
//! cost little, and a vCPU that has begun to spin spins for about as long as it has worked before. How soon the
//! first look comes depends on what earlier ones have found (`LookPace`).

use baton_machine::inferred::{Look, LookPace};
use vcpu_sched::{Hints, Ns, Suspects};

/// A vCPU that is to release a lock and still holds something after so many looks is stopped.
const RELEASE_LOOKS: u32 = 10;
/// The time from one to the next is doubled until so many have been made.
const LAST_DOUBLING: u32 = 6;
/// From look to look at a vCPU whose preemption is deferred, beside the entry, ns.
const DEFERRAL_NS: Ns = 5_000;
/// A vCPU that may spin for one that runs is stopped if so many further looks find it spinning.
const CONFIRMATIONS: u32 = 2;
/// From look to look meanwhile, beside the entry, ns.
const CONFIRM_NS: Ns = 10_000;

/// Why a vCPU is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// To stop it when it has released a lock. It may run on so often.
    Release { left: u32 },
    /// The same, with its preemption deferred.
    Deferral,
    /// To stop it if it spins.
    Wait {
        /// From look to look, ns.
        step: Ns,
        /// Looks in a row that found it spinning.
        spun: u32,
    },
}

/// The looks at a vCPU on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Looks {
    next: Ns,
    /// An estimate of the time, ns, that an entry into the guest takes.
    entry: Ns,
    purpose: Purpose,
}

/// What follows a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The vCPU runs on.
    RunsOn,
    /// It is stopped.
    Stops,
    /// It runs for itself, maybe with its preemption deferred, and spins. [`Looks::spins`] decides what follows.
    Spins,
}

impl Looks {
    /// Looks at a vCPU that runs from `now` on, only to release a lock; `entry`, ns, is lost to its entry.
    pub(super) fn until_release(now: Ns, entry: Ns, pace: &mut LookPace) -> Self {
        let left = RELEASE_LOOKS;
        Self::new(Purpose::Release { left }, now, entry, pace)
    }

    /// Looks at a vCPU whose preemption is deferred from `now` on.
    pub(super) fn for_deferral(now: Ns, entry: Ns, pace: &mut LookPace) -> Self {
        Self::new(Purpose::Deferral, now, entry, pace)
    }

    /// Looks at a vCPU that runs for itself from `now` on.
    pub(super) fn for_wait(now: Ns, entry: Ns, pace: &mut LookPace) -> Self {
        let step = pace.until_wait();
        Self::new(Purpose::Wait { step, spun: 0 }, now, entry, pace)
    }

    fn new(purpose: Purpose, now: Ns, entry: Ns, pace: &mut LookPace) -> Self {
        let mut looks = Self {
            next: now,
            entry,
            purpose,
        };
        looks.plan(now, pace);
        looks
    }

    /// When the next look is, ns.
    pub(super) fn next(&self) -> Ns {
        self.next
    }

    /// Whether the next look is so late that the vCPU will be in the guest: only then its exit shows how long
    /// an exit takes.
    pub(super) fn measures_exits(&self) -> bool {
        matches!(self.purpose, Purpose::Wait { spun: 0, .. })
    }

    /// Plans the next look.
    fn plan(&mut self, now: Ns, pace: &mut LookPace) {
        let after = match self.purpose {
            Purpose::Wait { step, spun: 0 } => step,
            Purpose::Wait { .. } => CONFIRM_NS + self.entry,
            // The entry may take longer than estimated, so that the vCPU does nothing before the look.
            Purpose::Release { left } => {
                pace.until_release(self.entry) + longer(RELEASE_LOOKS - left, self.entry)
            }
            // The vCPU ran before, so nothing is known about when it takes the lock again.
            Purpose::Deferral => self.entry + self.entry / 4 + DEFERRAL_NS,
        };
        self.next = now.saturating_add(after);
    }

    /// A look at the vCPU `now` shows `hints`.
    pub(super) fn look(&mut self, hints: &Hints, now: Ns, pace: &mut LookPace) -> Verdict {
        let found = found(hints);
        let verdict = match &mut self.purpose {
            Purpose::Wait { .. } | Purpose::Deferral if found == Look::Spins => {
                return Verdict::Spins;
            }
            Purpose::Wait { step, spun } => {
                *spun = 0;
                *step = step.saturating_mul(2);
                Verdict::RunsOn
            }
            Purpose::Release { left } => {
                // Of a vCPU that runs on, only the first look is in a known relation to its release.
                if *left == RELEASE_LOOKS {
                    pace.looked_for_release(found);
                }
                *left -= 1;
                match found {
                    Look::Holds if *left > 0 => Verdict::RunsOn,
                    _ => Verdict::Stops,
                }
            }
            Purpose::Deferral if found == Look::Holds => Verdict::RunsOn,
            Purpose::Deferral => Verdict::Stops,
        };
        self.plan(now, pace);
        verdict
    }

    /// The vCPU, which does not run only to release a lock, spins `now` for one of `suspects`: may it run on?
    pub(super) fn spins(&mut self, suspects: Suspects, now: Ns, pace: &mut LookPace) -> bool {
        let (step, spun) = match &mut self.purpose {
            Purpose::Wait { step, spun } => (step, spun),
            // It waits for one that runs, so its wait and its critical section are soon over.
            Purpose::Deferral if suspects == Suspects::None => {
                self.plan(now, pace);
                return true;
            }
            Purpose::Deferral | Purpose::Release { .. } => return false,
        };
        match suspects {
            Suspects::OffCpu => return false,
            Suspects::OffCpuOrRunning if *spun == CONFIRMATIONS => return false,
            Suspects::OffCpuOrRunning => *spun += 1,
            Suspects::None => {
                *spun = 0;
                *step = step.saturating_mul(2);
            }
        }
        self.plan(now, pace);
        true
    }

    /// Whether these are looks at a vCPU that runs for itself.
    pub(super) fn are_for_wait(&self) -> bool {
        matches!(self.purpose, Purpose::Wait { .. })
    }
}

/// How much later the next of the looks comes that wait for a release, ns, after `looks` that have found none.
/// Doubled each time: an interrupt takes tens of microseconds, and a vCPU gets little done from look to look.
fn longer(looks: u32, entry: Ns) -> Ns {
    match looks {
        0 => 0,
        1..=LAST_DOUBLING => (entry / 8) << (looks - 1),
        _ => (entry / 8) << (LAST_DOUBLING - 1),
    }
}

fn found(hints: &Hints) -> Look {
    match (hints.depth, hints.waits) {
        (0, _) => Look::Free,
        (_, false) => Look::Holds,
        (_, true) => Look::Spins,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: Ns = 4_000;

    fn hints(depth: u32, waits: bool) -> Hints {
        Hints {
            depth,
            waits,
            is_guess: true,
            ..Hints::default()
        }
    }

    #[test]
    fn a_vcpu_that_is_to_release_a_lock_runs_until_it_holds_none_or_spins() {
        let mut pace = LookPace::default();
        for (new, spins) in [
            (
                Looks::until_release as fn(Ns, Ns, &mut LookPace) -> Looks,
                Verdict::Stops,
            ),
            (Looks::for_deferral, Verdict::Spins),
        ] {
            let mut looks = new(1_000, ENTRY, &mut pace);
            assert!(looks.next() > 1_000);
            let verdicts = [hints(1, false), hints(0, false), hints(1, true)]
                .map(|hints| looks.look(&hints, 30_000, &mut pace));
            let expected = [Verdict::RunsOn, Verdict::Stops, spins];
            assert_eq!(verdicts, expected);
        }
    }

    #[test]
    fn a_vcpu_whose_preemption_is_deferred_spins_on_only_for_one_that_runs() {
        let mut pace = LookPace::default();
        let mut looks = Looks::for_deferral(0, ENTRY, &mut pace);
        let next = looks.next();
        assert!(looks.spins(Suspects::None, next, &mut pace));
        assert!(looks.next() > next);
        for suspects in [Suspects::OffCpu, Suspects::OffCpuOrRunning] {
            assert!(!looks.spins(suspects, looks.next(), &mut pace));
        }
    }

    #[test]
    fn a_vcpu_that_is_to_release_a_lock_and_holds_it_for_ever_is_stopped() {
        let mut pace = LookPace::default();
        let mut looks = Looks::until_release(0, ENTRY, &mut pace);
        let holds = hints(1, false);
        let runs_on = |_: &u32| looks.look(&holds, looks.next(), &mut pace) == Verdict::RunsOn;
        let count = (0..).take_while(runs_on).count();
        assert_eq!(count as u32, RELEASE_LOOKS - 1);
    }

    #[test]
    fn a_vcpu_that_goes_on_holding_a_lock_is_looked_at_ever_more_rarely() {
        let times: Vec<Ns> = (0..8).map(|looks| longer(looks, ENTRY)).collect();
        let expected = [0, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 16_000];
        assert_eq!(times, expected);
    }

    #[test]
    fn a_vcpu_that_runs_for_itself_is_looked_at_ever_more_rarely_until_it_spins() {
        let mut pace = LookPace::default();
        let mut looks = Looks::for_wait(0, ENTRY, &mut pace);
        let mut times = Vec::new();
        for depth in [0, 1, 0] {
            times.push(looks.next());
            let verdict = looks.look(&hints(depth, false), looks.next(), &mut pace);
            assert_eq!(verdict, Verdict::RunsOn);
        }
        assert_eq!(times, [100_000, 300_000, 700_000]);
        let verdict = looks.look(&hints(1, true), looks.next(), &mut pace);
        assert_eq!(verdict, Verdict::Spins);
        assert!(!looks.spins(Suspects::OffCpu, looks.next(), &mut pace));
    }

    #[test]
    fn a_vcpu_that_spins_for_one_that_runs_runs_on() {
        let mut pace = LookPace::default();
        let mut looks = Looks::for_wait(0, ENTRY, &mut pace);
        for next in [300_000, 700_000] {
            assert!(looks.spins(Suspects::None, looks.next(), &mut pace));
            assert_eq!(looks.next(), next);
        }
    }

    #[test]
    fn a_vcpu_that_may_spin_for_one_that_runs_is_stopped_if_it_goes_on_spinning() {
        let mut pace = LookPace::default();
        let mut looks = Looks::for_wait(0, ENTRY, &mut pace);
        let mut times = Vec::new();
        while looks.spins(Suspects::OffCpuOrRunning, looks.next(), &mut pace) {
            times.push(looks.next());
        }
        assert_eq!(times, [114_000, 128_000]);
    }
}
