//! What a guest requests by ringing: `baton_abi::hints::PORT_DOORBELL`.

use baton_abi::hints::{
    DOORBELL_IDLE, DOORBELL_REASON_BITS, DOORBELL_RELEASE, DOORBELL_WAIT, DOORBELL_WAKE,
};
use baton_os::nospec;

/// A doorbell. The vCPUs that it names exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doorbell {
    /// The ringing vCPU spins for a vCPU that does not run.
    Wait,
    /// The ringing vCPU has released a lock, as the host requested.
    Release {
        /// Index of the vCPU that holds the lock now, if known.
        to: Option<u32>,
    },
    /// The ringing vCPU has nothing to run until a [`Doorbell::Wake`] or the time in its hint page.
    Idle,
    /// A vCPU is to be woken. It may be the one that rings.
    Wake {
        /// Index of the vCPU.
        target: u32,
    },
}

impl Doorbell {
    /// The doorbell that `value` rings in a guest of `vcpus` vCPUs; `None` if the value makes no sense.
    #[must_use]
    pub fn decode(value: u32, vcpus: u32) -> Option<Self> {
        let reason = value & ((1 << DOORBELL_REASON_BITS) - 1);
        let argument = value >> DOORBELL_REASON_BITS;
        let named =
            |index: u32| nospec::below(index as usize, vcpus as usize).map(|index| index as u32);
        match reason {
            DOORBELL_WAIT => Some(Self::Wait),
            DOORBELL_RELEASE => Some(Self::Release {
                // 0 names no vCPU.
                to: match argument.checked_sub(1) {
                    Some(index) => Some(named(index)?),
                    None => None,
                },
            }),
            DOORBELL_IDLE => Some(Self::Idle),
            DOORBELL_WAKE => Some(Self::Wake {
                target: named(argument)?,
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doorbell_that_names_a_vcpu_that_does_not_exist_makes_no_sense() {
        let ring =
            |reason, argument| Doorbell::decode(baton_abi::hints::doorbell(reason, argument), 4);
        assert_eq!(ring(DOORBELL_WAIT, 0), Some(Doorbell::Wait));
        assert_eq!(ring(DOORBELL_IDLE, 0), Some(Doorbell::Idle));
        assert_eq!(
            ring(DOORBELL_RELEASE, 0),
            Some(Doorbell::Release { to: None })
        );
        assert_eq!(
            ring(DOORBELL_RELEASE, 4),
            Some(Doorbell::Release { to: Some(3) })
        );
        assert_eq!(ring(DOORBELL_RELEASE, 5), None);
        assert_eq!(ring(DOORBELL_WAKE, 3), Some(Doorbell::Wake { target: 3 }));
        assert_eq!(ring(DOORBELL_WAKE, 4), None);
        assert_eq!(ring(0, 0), None);
        assert_eq!(ring(0xff, 0x00ff_ffff), None);
    }
}
