//! Best effort: what reservations leave, divided by weight.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996): each context has a start tag in
//! virtual time; the smallest runs next, for one slice; its tag then moves on by what it ran,
//! divided by its weight. A context that slept starts at most half a slice behind the virtual time of
//! the pool: it goes before contexts that ran meanwhile, and sleeping saves up no more than that. A
//! guest's weight is divided among its runnable vCPUs at the moment of the charge, so that a guest
//! gets no larger share for having more vCPUs.

use crate::ids::Ns;

/// Largest weight; the smallest is 1.
pub(crate) const MAX_WEIGHT: u32 = 10_000;

/// A wake-up may end the running slice only once this part of it (a quarter) has been used. So wake-ups
/// cause at most four switches in a slice.
const WAKE_SHARE: Ns = 4;

/// A context's place in the fair order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FairShare {
    weight: u32,
    /// Virtual start time of the current slice. 128 bits: never wraps.
    tag: u128,
    /// Run in the current slice, ns.
    used: Ns,
}

impl FairShare {
    pub(crate) fn new(weight: u32) -> Self {
        Self {
            weight: weight.clamp(1, MAX_WEIGHT),
            tag: 0,
            used: 0,
        }
    }

    /// Moves the tag with the virtual time of its queue.
    pub(crate) fn shift(&mut self, by: u128) {
        self.tag += by;
    }

    pub(crate) const fn tag(&self) -> u128 {
        self.tag
    }

    /// What is left of the slice, ns; at least 1.
    pub(crate) const fn left(&self, slice: Ns) -> Ns {
        let left = slice.saturating_sub(self.used);
        if left == 0 { 1 } else { left }
    }

    /// Charges `ran` ns; true if the slice ended and the tag moved. `v` is the virtual time.
    pub(crate) fn charge(&mut self, ran: Ns, slice: Ns, sharers: u32, v: u128) -> bool {
        self.used = self.used.saturating_add(ran);
        if self.used < slice {
            return false;
        }
        let before = self.tag;
        self.end_slice(sharers);
        // One vCPU can use one CPU at most. What its weight would give it beyond that is not
        // saved up: it stays within a slice of the others.
        let moved = self.tag - before;
        self.tag = self.tag.max(v.saturating_sub(moved));
        true
    }

    /// Ends the slice early: the context sleeps, or the next one begins.
    pub(crate) fn end_slice(&mut self, sharers: u32) {
        self.tag += self.scaled(self.used, sharers);
        self.used = 0;
    }

    /// Virtual time that `ran` ns take.
    fn scaled(&self, ran: Ns, sharers: u32) -> u128 {
        let scaled = u128::from(ran) * u128::from(MAX_WEIGHT) * u128::from(sharers.max(1));
        scaled / u128::from(self.weight)
    }

    /// The start tag of the last slice that it has run in after `ran` ns more.
    pub(crate) fn tag_after(&self, ran: Ns, slice: Ns, sharers: u32) -> u128 {
        let used = self.used.saturating_add(ran).saturating_sub(1);
        self.tag + self.scaled(used - used % slice, sharers)
    }

    /// How much longer it runs before a wake-up may end its slice, ns.
    pub(crate) const fn until_preemptible(&self, slice: Ns) -> Ns {
        (slice / WAKE_SHARE).saturating_sub(self.used)
    }

    /// Where the tag would be if the slice ended after `ran` ns more; `None` before it has lasted for
    /// a [`WAKE_SHARE`]th of `slice`.
    ///
    /// Source: the wake-up granularity of Linux's CFS (`wakeup_preempt_entity()`, to Linux 6.5).
    pub(crate) fn tag_if_ended(&self, ran: Ns, slice: Ns, sharers: u32) -> Option<u128> {
        let used = self.used.saturating_add(ran);
        (used >= slice / WAKE_SHARE).then(|| self.tag_now(ran, sharers))
    }

    /// Where the tag would be if the slice ended after `ran` ns more, however short it was.
    pub(crate) fn tag_now(&self, ran: Ns, sharers: u32) -> u128 {
        self.tag + self.scaled(self.used.saturating_add(ran), sharers)
    }

    /// Becomes runnable at virtual time `v`. It keeps what it fell behind by sleeping, up to half a slice.
    ///
    /// Source: the placement of sleepers in Linux's CFS (`place_entity()`, to Linux 6.5).
    pub(crate) fn wake(&mut self, v: u128, slice: Ns, sharers: u32) {
        let start = v.saturating_sub(self.scaled(slice / 2, sharers));
        self.tag = self.tag.max(start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_the_weight_moves_half_as_fast() {
        let (mut light, mut heavy) = (FairShare::new(100), FairShare::new(200));
        assert!(light.charge(1000, 1000, 1, 0) && heavy.charge(1000, 1000, 1, 0));
        assert_eq!(light.tag(), 2 * heavy.tag());
    }

    #[test]
    fn vcpus_of_one_guest_divide_its_weight() {
        let mut one_of_four = FairShare::new(400);
        let mut alone = FairShare::new(100);
        one_of_four.charge(1000, 1000, 4, 0);
        alone.charge(1000, 1000, 1, 0);
        assert_eq!(one_of_four.tag(), alone.tag());
    }

    #[test]
    fn sleeping_saves_half_a_slice_up_and_no_more() {
        let mut f = FairShare::new(10_000);
        f.wake(7_000, 1_000, 1);
        assert_eq!(f.tag(), 6_500);
        f.wake(6_900, 1_000, 1);
        assert_eq!(f.tag(), 6_500, "what it has used it does not get back");
    }

    #[test]
    fn a_slice_does_not_end_for_a_wake_up_before_a_quarter_of_it() {
        let mut f = FairShare::new(10_000);
        assert_eq!(f.tag_if_ended(249, 1000, 1), None);
        assert_eq!(f.tag_if_ended(250, 1000, 1), Some(250));
        f.charge(100, 1000, 1, 0);
        assert_eq!(f.tag_if_ended(150, 1000, 2), Some(500));
    }

    #[test]
    fn a_slice_can_be_used_in_pieces() {
        let mut f = FairShare::new(100);
        assert!(!f.charge(400, 1000, 1, 0));
        assert_eq!((f.tag(), f.left(1000)), (0, 600));
        assert!(f.charge(600, 1000, 1, 0));
        assert_eq!(f.left(1000), 1000);
    }

    #[test]
    fn a_share_beyond_one_cpu_is_not_saved_up() {
        let mut f = FairShare::new(10_000);
        f.charge(1000, 1000, 1, 1_000_000);
        assert_eq!(f.tag(), 999_000);
    }
}
