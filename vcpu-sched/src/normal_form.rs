//! What a state of the policy is reduced to when two states are compared: a string of bytes in which states that
//! behave alike are equal.
//!
//! Points in time count from the present, and those in the past no further back than the horizon, beyond which
//! nothing depends on them. The virtual time of the fair class counts from the latest virtual time of all queues.
//! (How far that is from its origin does not matter: no tag lies before the origin, and what would lie there is only
//! ever compared with a tag.)

use crate::cpuset::CpuSet;
use crate::ids::{CpuId, Ns, VcpuId};

/// The origins from which a normal form counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origins {
    /// The present, ns.
    pub(crate) now: Ns,
    /// How far back a point in time is told from an earlier one, ns.
    pub(crate) horizon: Ns,
    /// The virtual time from which others count.
    pub(crate) virtual_now: u128,
    /// The same as `horizon` in virtual time.
    pub(crate) virtual_horizon: u128,
}

/// The normal form of a state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NormalForm {
    bytes: Vec<u8>,
}

/// Writes a normal form.
#[derive(Debug)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    origins: Origins,
}

/// Has a normal form of its own. Implementations name each field, so that a new field is not forgotten.
pub(crate) trait Normalise {
    /// Writes what others can tell of it.
    fn normalise(&self, to: &mut Writer);
}

impl NormalForm {
    /// The form as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Writer {
    pub(crate) fn new(origins: Origins) -> Self {
        Self {
            bytes: Vec::with_capacity(512),
            origins,
        }
    }

    pub(crate) fn finish(self) -> NormalForm {
        NormalForm { bytes: self.bytes }
    }

    pub(crate) const fn now(&self) -> Ns {
        self.origins.now
    }

    /// A number, in as few bytes as it needs (LEB128).
    pub(crate) fn number(&mut self, number: impl Into<u128>) {
        let mut rest: u128 = number.into();
        while rest >= 0x80 {
            self.bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.push(rest as u8);
    }

    /// A number that may be negative.
    pub(crate) fn signed(&mut self, number: i128) {
        self.number((number.unsigned_abs() << 1) | u128::from(number < 0));
    }

    pub(crate) fn size(&mut self, number: usize) {
        self.number(number as u64);
    }

    pub(crate) fn flag(&mut self, flag: bool) {
        self.number(u8::from(flag));
    }

    /// A point in time, ns.
    pub(crate) fn time(&mut self, at: Ns) {
        let from_now = i128::from(at) - i128::from(self.origins.now);
        self.signed(from_now.max(-i128::from(self.origins.horizon)));
    }

    /// A point in time, ns, that is of no interest once it has passed.
    pub(crate) fn future(&mut self, at: Ns) {
        self.number(at.saturating_sub(self.origins.now));
    }

    /// A length of time, ns, beyond which nothing depends on it if it exceeds the horizon.
    pub(crate) fn length(&mut self, length: Ns) {
        self.number(length.min(self.origins.horizon));
    }

    /// A moment in virtual time.
    pub(crate) fn virtual_moment(&mut self, at: u128) {
        let from_now = at as i128 - self.origins.virtual_now as i128;
        self.signed(from_now.max(-(self.origins.virtual_horizon as i128)));
    }

    pub(crate) fn vcpu(&mut self, vcpu: VcpuId) {
        self.number(vcpu.0);
    }

    pub(crate) fn cpu(&mut self, cpu: CpuId) {
        self.number(cpu.0);
    }

    pub(crate) fn cpus(&mut self, cpus: CpuSet) {
        let bits: u128 = cpus.iter().map(|cpu| 1_u128 << cpu.0).sum();
        self.number(bits);
    }

    /// A value that may be missing.
    pub(crate) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// A list, whose order matters.
    pub(crate) fn list<T>(
        &mut self,
        values: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        for value in values {
            self.flag(true);
            write(self, value);
        }
        self.flag(false);
    }

    /// A part that has a normal form.
    pub(crate) fn part(&mut self, part: &impl Normalise) {
        part.normalise(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(now: Ns, write: impl FnOnce(&mut Writer)) -> NormalForm {
        let mut writer = Writer::new(Origins {
            now,
            horizon: 100,
            virtual_now: 50,
            virtual_horizon: 10,
        });
        write(&mut writer);
        writer.finish()
    }

    #[test]
    fn times_are_equal_if_they_are_as_far_from_the_present() {
        assert_eq!(form(1_000, |w| w.time(990)), form(5_000, |w| w.time(4_990)));
        assert_ne!(form(1_000, |w| w.time(990)), form(1_000, |w| w.time(1_010)));
    }

    #[test]
    fn what_lies_beyond_the_horizon_is_equal() {
        assert_eq!(form(1_000, |w| w.time(900)), form(1_000, |w| w.time(0)));
        assert_ne!(form(1_000, |w| w.time(901)), form(1_000, |w| w.time(900)));
        assert_eq!(
            form(0, |w| w.virtual_moment(40)),
            form(0, |w| w.virtual_moment(0))
        );
    }

    #[test]
    fn no_list_is_taken_for_another_one() {
        let lists = |first: &'static [u8], second: &'static [u8]| {
            form(0, |w| {
                for list in [first, second] {
                    w.list(list, |w, &value| w.number(value));
                }
            })
        };
        assert_ne!(lists(&[1, 1], &[]), lists(&[1], &[1]));
        assert_ne!(form(0, |w| w.signed(-1)), form(0, |w| w.signed(1)));
    }
}
