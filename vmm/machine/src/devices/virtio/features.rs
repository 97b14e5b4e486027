//! Feature bits: what a device offers and what its driver accepts of that.

/// A set of feature bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Features(u64);

/// One of the two 32-bit halves in which the driver reads and writes features and addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Low,
    High,
}

impl Half {
    /// The half that a driver selects by `number`; there are only 0 and 1.
    pub(super) fn selected_by(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Low),
            1 => Some(Self::High),
            _ => None,
        }
    }

    pub(super) fn of(self, value: u64) -> u32 {
        match self {
            Self::Low => value as u32,
            Self::High => (value >> 32) as u32,
        }
    }

    /// Replaces this half of `value`.
    pub(super) fn replace(self, value: &mut u64, half: u32) {
        *value = match self {
            Self::Low => *value & !0xffff_ffff | u64::from(half),
            Self::High => *value & 0xffff_ffff | u64::from(half) << 32,
        };
    }
}

impl Features {
    /// The set of these bits, each given by its number.
    pub(super) fn of(bits: &[u32]) -> Self {
        Self(bits.iter().fold(0, |set, bit| set | 1 << bit))
    }

    pub(super) fn contains(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }

    pub(super) fn with(self, bit: u32) -> Self {
        Self(self.0 | 1 << bit)
    }

    #[cfg(test)]
    pub(super) fn without(self, bit: u32) -> Self {
        Self(self.0 & !(1 << bit))
    }

    /// Whether all bits of this set are in `other` too.
    pub(super) fn is_subset_of(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    pub(super) fn half(self, half: Half) -> u32 {
        half.of(self.0)
    }

    pub(super) fn replace_half(&mut self, half: Half, bits: u32) {
        half.replace(&mut self.0, bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_reads_and_writes_features_by_halves() {
        let mut features = Features::of(&[0, 33]);
        assert_eq!(features.half(Half::Low), 1);
        assert_eq!(features.half(Half::High), 2);
        features.replace_half(Half::High, 4);
        assert_eq!(features, Features::of(&[0, 34]));
        features.replace_half(Half::Low, 2);
        assert_eq!(features, Features::of(&[1, 34]));
        assert_eq!(Half::selected_by(2), None);
    }

    #[test]
    fn a_set_is_a_subset_of_another_if_that_has_all_its_bits() {
        let offered = Features::of(&[1, 32]);
        assert!(Features::default().is_subset_of(offered));
        assert!(Features::of(&[32]).is_subset_of(offered));
        assert!(!Features::of(&[1, 2]).is_subset_of(offered));
    }
}
