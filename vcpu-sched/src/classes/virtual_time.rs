//! The clock of the fair class: CPU time divided by weight.

use std::ops::{Add, AddAssign};

/// A moment in virtual time. 128 bits never wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct VirtualTime(pub(crate) u128);

/// A length of virtual time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct VirtualSpan(pub(crate) u128);

impl VirtualTime {
    pub(crate) const ZERO: Self = Self(0);

    /// The moment `span` earlier; the origin if there is none.
    pub(crate) const fn saturating_sub(self, span: VirtualSpan) -> Self {
        Self(self.0.saturating_sub(span.0))
    }

    /// How long it is from `earlier` to here; nothing if that is later.
    pub(crate) const fn since(self, earlier: Self) -> VirtualSpan {
        VirtualSpan(self.0.saturating_sub(earlier.0))
    }
}

impl Add<VirtualSpan> for VirtualTime {
    type Output = Self;

    fn add(self, span: VirtualSpan) -> Self {
        Self(self.0 + span.0)
    }
}

impl AddAssign<VirtualSpan> for VirtualTime {
    fn add_assign(&mut self, span: VirtualSpan) {
        self.0 += span.0;
    }
}
