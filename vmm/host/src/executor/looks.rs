//! When a vCPU is looked at that publishes no hints and rings no doorbell.
//!
//! A look is an exit, by the timer, and a few reads. A vCPU whose preemption is deferred, or that runs because
//! it is suspected to hold a lock, is looked at often, because the time is not its own. A vCPU that runs for
//! itself is looked at to find out whether it only spins. The time from look to look doubles, so that the looks
//! cost little, and a vCPU that has begun to spin spins for about as long as it has worked before.

use vcpu_sched::{Hints, Ns};

/// From look to look at a vCPU that is to release a lock, ns.
const RELEASE_NS: Ns = 20_000;
/// A suspect that still holds something after so many looks is stopped.
const SUSPECT_LOOKS: u32 = 10;
/// Until the first look at a vCPU that runs for itself, ns.
const WAIT_NS: Ns = 100_000;

/// The looks at a vCPU on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Looks {
    next: Ns,
    step: Ns,
    /// Whether the vCPU runs only to release a lock.
    is_for_release: bool,
    /// How often the vCPU may run on.
    left: u32,
}

impl Looks {
    /// Looks at a vCPU that runs from `now` on to release a lock; `entry`, ns, is lost to its entry.
    pub(super) fn for_release(now: Ns, entry: Ns) -> Self {
        let step = RELEASE_NS.saturating_add(entry);
        Self {
            next: now.saturating_add(step),
            step,
            is_for_release: true,
            left: u32::MAX,
        }
    }

    /// The same of a vCPU that runs because it is suspected to hold a lock.
    pub(super) fn at_suspect(now: Ns, entry: Ns) -> Self {
        Self {
            left: SUSPECT_LOOKS,
            ..Self::for_release(now, entry)
        }
    }

    /// Looks at a vCPU that runs for itself from `now` on.
    pub(super) fn for_wait(now: Ns) -> Self {
        Self {
            next: now.saturating_add(WAIT_NS),
            step: WAIT_NS,
            is_for_release: false,
            left: u32::MAX,
        }
    }

    /// When the next look is, ns.
    pub(super) fn next(&self) -> Ns {
        self.next
    }

    /// A look at the vCPU `now` shows `hints`: may it run on?
    pub(super) fn runs_on(&mut self, hints: &Hints, now: Ns) -> bool {
        if !self.is_for_release {
            self.step = self.step.saturating_mul(2);
        }
        self.next = now.saturating_add(self.step);
        self.left = self.left.saturating_sub(1);
        self.left > 0 && !hints.waits && (hints.depth > 0 || !self.is_for_release)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut looks = Looks::for_release(1_000, 500);
        assert_eq!(looks.next(), 21_500);
        assert!(looks.runs_on(&hints(1, false), 30_000));
        assert_eq!(looks.next(), 50_500);
        assert!(!looks.runs_on(&hints(0, false), 60_000));
        assert!(!looks.runs_on(&hints(1, true), 60_000));
    }

    #[test]
    fn a_suspect_that_holds_something_for_ever_is_stopped() {
        let mut looks = Looks::at_suspect(0, 0);
        let count = (0..).take_while(|_| looks.runs_on(&hints(1, false), looks.next()));
        assert_eq!(count.count() as u32, SUSPECT_LOOKS - 1);
    }

    #[test]
    fn a_vcpu_that_runs_for_itself_is_looked_at_ever_more_rarely_until_it_spins() {
        let mut looks = Looks::for_wait(0);
        let mut times = Vec::new();
        for depth in [0, 1, 0] {
            times.push(looks.next());
            assert!(looks.runs_on(&hints(depth, false), looks.next()));
        }
        assert_eq!(times, [100_000, 300_000, 700_000]);
        assert!(!looks.runs_on(&hints(1, true), looks.next()));
    }
}
