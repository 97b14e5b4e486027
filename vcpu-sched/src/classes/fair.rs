//! The fair class: best effort, which divides by weight what reservations leave.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996): each scheduling context has a start tag in
//! virtual time. The one with the smallest tag runs next, for one slice. Its tag then moves on by what
//! it ran, divided by its weight. A scheduling context that slept starts at most half a slice behind the
//! virtual time of the pool: it goes before those that ran meanwhile, and sleeping saves up no more than
//! that. A guest's weight is divided among its runnable vCPUs at the moment of the charge, so that a
//! guest gets no larger share for having more vCPUs.

use crate::classes::virtual_time::{VirtualSpan, VirtualTime};
use crate::ids::Ns;
use crate::normal_form::{Normalise, Writer};

/// Largest weight; the smallest is 1.
pub(crate) const MAX_WEIGHT: u32 = 10_000;

/// A wake-up may end the slice under way only once this part of it (a quarter) has been used. So wake-ups
/// cause at most four switches in a slice.
const PREEMPTIBLE_SHARE: Ns = 4;

/// What the fair order of one scheduling context depends on besides its own past.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FairInputs {
    /// Length of a slice, ns.
    pub(crate) slice: Ns,
    /// Runnable vCPUs of the guest, which divide its weight.
    pub(crate) sharers: u32,
    /// The virtual time of the queue.
    pub(crate) virtual_time: VirtualTime,
}

/// A scheduling context's place in the fair order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FairShare {
    weight: u32,
    /// The weight from the next slice on.
    next_weight: u32,
    /// Virtual start time of the slice under way.
    tag: VirtualTime,
    /// CPU time used of the slice under way, ns.
    used: Ns,
}

impl FairShare {
    pub(crate) fn new(weight: u32) -> Self {
        let weight = weight.clamp(1, MAX_WEIGHT);
        Self {
            weight,
            next_weight: weight,
            tag: VirtualTime::ZERO,
            used: 0,
        }
    }

    /// Sets another weight, in force from the next slice on. While it `runs`, it is in a slice of which nothing
    /// has been charged yet.
    pub(crate) fn set_weight(&mut self, weight: u32, runs: bool) {
        self.next_weight = weight.clamp(1, MAX_WEIGHT);
        if self.used == 0 && !runs {
            self.weight = self.next_weight;
        }
    }

    /// Moves the tag from one queue, where virtual time is `from`, to another, where it is `to`: it is as far
    /// behind or ahead there.
    pub(crate) fn rebase(&mut self, from: VirtualTime, to: VirtualTime) {
        self.tag = to.saturating_sub(from.since(self.tag)) + self.tag.since(from);
    }

    /// Moves the tag with the virtual time of its queue.
    pub(crate) fn shift(&mut self, by: VirtualSpan) {
        self.tag += by;
    }

    #[inline]
    pub(crate) const fn tag(&self) -> VirtualTime {
        self.tag
    }

    /// What is left of the slice, ns; at least 1.
    #[inline]
    pub(crate) const fn left(&self, slice: Ns) -> Ns {
        let left = slice.saturating_sub(self.used);
        if left == 0 { 1 } else { left }
    }

    /// Charges `ran` ns. True if the slice ended and the tag moved.
    #[inline]
    pub(crate) fn charge(&mut self, ran: Ns, inputs: &FairInputs) -> bool {
        self.used = self.used.saturating_add(ran);
        if self.used < inputs.slice {
            return false;
        }
        let before = self.tag;
        self.end_slice(inputs.sharers);
        // One vCPU can use one CPU at most. What its weight would give it beyond that is not saved up:
        // it stays within a slice of the others.
        let moved = self.tag.since(before);
        self.tag = self.tag.max(inputs.virtual_time.saturating_sub(moved));
        true
    }

    /// Ends the slice early: the vCPU sleeps, or another one's slice begins.
    #[inline]
    pub(crate) fn end_slice(&mut self, sharers: u32) {
        self.tag += self.scaled(self.used, sharers);
        (self.used, self.weight) = (0, self.next_weight);
    }

    /// The virtual time that `ran` ns take.
    #[inline]
    fn scaled(&self, ran: Ns, sharers: u32) -> VirtualSpan {
        let scaled = u128::from(ran) * u128::from(MAX_WEIGHT) * u128::from(sharers.max(1));
        VirtualSpan(scaled / u128::from(self.weight))
    }

    /// The start tag of the last slice that it has run in after `ran` ns more.
    #[inline]
    pub(crate) fn tag_after(&self, ran: Ns, slice: Ns, sharers: u32) -> VirtualTime {
        let used = self.used.saturating_add(ran).saturating_sub(1);
        self.tag + self.scaled(used - used % slice, sharers)
    }

    /// The virtual time that a slice takes at most, with the lower of its weights.
    pub(crate) fn longest_slice(&self, slice: Ns, sharers: u32) -> u128 {
        let weight = self.weight.min(self.next_weight);
        Self::new(weight).scaled(slice, sharers).0
    }

    /// How much longer it runs before a wake-up may end its slice, ns.
    #[inline]
    pub(crate) const fn until_preemptible(&self, slice: Ns) -> Ns {
        (slice / PREEMPTIBLE_SHARE).saturating_sub(self.used)
    }

    /// Where the tag would be if the slice ended after `ran` ns more; `None` before the slice has lasted
    /// for a [`PREEMPTIBLE_SHARE`]th of its length.
    ///
    /// Source: the wake-up granularity of Linux's CFS (`wakeup_preempt_entity()`, to Linux 6.5).
    #[inline]
    pub(crate) fn tag_if_preempted(&self, ran: Ns, slice: Ns, sharers: u32) -> Option<VirtualTime> {
        let used = self.used.saturating_add(ran);
        (used >= slice / PREEMPTIBLE_SHARE).then(|| self.tag_now(ran, sharers))
    }

    /// Where the tag would be if the slice ended after `ran` ns more, however short it was.
    #[inline]
    pub(crate) fn tag_now(&self, ran: Ns, sharers: u32) -> VirtualTime {
        self.tag + self.scaled(self.used.saturating_add(ran), sharers)
    }

    /// CPU time by which it is ahead of the `virtual_time` of its queue, at its weight alone, ns.
    pub(crate) fn lead(&self, virtual_time: VirtualTime) -> Ns {
        let ahead = (self.tag + self.scaled(self.used, 1)).since(virtual_time);
        let lead = ahead.0.saturating_mul(u128::from(self.weight)) / u128::from(MAX_WEIGHT);
        Ns::try_from(lead).unwrap_or(Ns::MAX)
    }

    /// Starts ahead of the `virtual_time` of its queue by `lead` ns of CPU time, if it is not ahead by more.
    pub(crate) fn owe(&mut self, lead: Ns, virtual_time: VirtualTime) {
        self.tag = self.tag.max(virtual_time + self.scaled(lead, 1));
    }

    /// Becomes runnable. It keeps what it fell behind by sleeping, up to half a slice.
    ///
    /// Source: the placement of sleepers in Linux's CFS (`place_entity()`, to Linux 6.5).
    #[inline]
    pub(crate) fn wake(&mut self, inputs: &FairInputs) {
        let half = self.scaled(inputs.slice / 2, inputs.sharers);
        let start = inputs.virtual_time.saturating_sub(half);
        self.tag = self.tag.max(start);
    }
}

impl Normalise for FairShare {
    fn normalise(&self, to: &mut Writer) {
        let &Self {
            weight,
            next_weight,
            tag,
            used,
        } = self;
        to.number(weight);
        to.number(next_weight);
        to.virtual_moment(tag.0);
        to.number(used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn inputs(sharers: u32, virtual_time: u128) -> FairInputs {
        FairInputs {
            slice: 1000,
            sharers,
            virtual_time: VirtualTime(virtual_time),
        }
    }

    #[test]
    fn twice_the_weight_moves_half_as_fast() {
        let (mut light, mut heavy) = (FairShare::new(100), FairShare::new(200));
        assert!(light.charge(1000, &inputs(1, 0)) && heavy.charge(1000, &inputs(1, 0)));
        assert_eq!(light.tag().0, 2 * heavy.tag().0);
    }

    #[test]
    fn a_slice_is_charged_by_the_weight_with_which_it_began() {
        let mut f = FairShare::new(100);
        f.charge(400, &inputs(1, 0));
        f.set_weight(10_000, false);
        f.charge(600, &inputs(1, 0));
        assert_eq!(f.tag().0, 100_000);
        f.charge(1000, &inputs(1, 0));
        assert_eq!(f.tag().0, 101_000);
    }

    #[test]
    fn a_tag_is_as_far_behind_or_ahead_in_another_queue() {
        for (tag, expected) in [(400, 900), (600, 1_100)] {
            let mut f = FairShare::new(1);
            f.tag = VirtualTime(tag);
            f.rebase(VirtualTime(500), VirtualTime(1_000));
            assert_eq!(f.tag().0, expected);
        }
    }

    #[test]
    fn vcpus_of_one_guest_divide_its_weight() {
        let mut one_of_four = FairShare::new(400);
        let mut alone = FairShare::new(100);
        one_of_four.charge(1000, &inputs(4, 0));
        alone.charge(1000, &inputs(1, 0));
        assert_eq!(one_of_four.tag(), alone.tag());
    }

    #[test]
    fn sleeping_saves_half_a_slice_up_and_no_more() {
        let mut f = FairShare::new(10_000);
        f.wake(&inputs(1, 7_000));
        assert_eq!(f.tag().0, 6_500);
        f.wake(&inputs(1, 6_900));
        assert_eq!(f.tag().0, 6_500, "what it has used it does not get back");
    }

    #[test]
    fn a_slice_does_not_end_for_a_wake_up_before_a_quarter_of_it() {
        let mut f = FairShare::new(10_000);
        assert_eq!(f.tag_if_preempted(249, 1000, 1), None);
        assert_eq!(f.tag_if_preempted(250, 1000, 1), Some(VirtualTime(250)));
        f.charge(100, &inputs(1, 0));
        assert_eq!(f.tag_if_preempted(150, 1000, 2), Some(VirtualTime(500)));
    }

    #[test]
    fn a_slice_can_be_used_in_pieces() {
        let mut f = FairShare::new(100);
        assert!(!f.charge(400, &inputs(1, 0)));
        assert_eq!((f.tag().0, f.left(1000)), (0, 600));
        assert!(f.charge(600, &inputs(1, 0)));
        assert_eq!(f.left(1000), 1000);
    }

    #[test]
    fn a_share_beyond_one_cpu_is_not_saved_up() {
        let mut f = FairShare::new(10_000);
        f.charge(1000, &inputs(1, 1_000_000));
        assert_eq!(f.tag().0, 999_000);
    }
}
