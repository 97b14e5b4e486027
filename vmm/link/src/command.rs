//! What the pool has a vCPU's thread do.

use baton_abi::hints::{RING_DEFER, RING_DONATED};
use vcpu_sched::Ns;

use crate::page::CommandWords;
use crate::sync::atomic::Ordering::Relaxed;

const RUN: u32 = 1;
const SLEEP: u32 = 2;
const STOP: u32 = 3;
/// `until_ns` of a run without an end.
const NO_END: Ns = Ns::MAX;

/// A command to a vCPU's thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the vCPU.
    Run(RunCommand),
    /// Let the halted vCPU sleep until an interrupt wakes it.
    Sleep,
    /// The pool no longer runs this vCPU.
    Stop,
}

/// How a vCPU is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunCommand {
    /// When the run ends at the latest, `CLOCK_MONOTONIC` ns. `None`: not before something happens.
    pub until: Option<Ns>,
    /// The host CPU to which the thread pins itself, as the host numbers it.
    pub host_cpu: u32,
    /// On whose scheduling context the vCPU runs, if that is another vCPU's.
    pub donated: Option<Donated>,
    /// Whether the vCPU runs on because its preemption is deferred.
    pub is_deferred: bool,
    /// Steal time of the vCPU since it joined, ns, to be shown to the guest.
    pub stolen_ns: Ns,
}

/// A run on another vCPU's scheduling context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Donated {
    /// Index of the donor in the guest of the vCPU that runs.
    pub donor: u32,
    /// The lock for which the donor waits.
    pub lock: u64,
}

/// Which command was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandKind {
    /// [`Command::Run`].
    Run,
    /// [`Command::Sleep`].
    Sleep,
    /// [`Command::Stop`].
    Stop,
}

/// A command makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The kind is none of the known ones.
    #[error("command {0} is unknown")]
    Kind(u32),
    /// A bit is set that has no meaning.
    #[error("ring bits {0:#x} are unknown")]
    Ring(u32),
    /// The donor is no vCPU of the guest.
    #[error("donor {donor} is not among the guest's {vcpus} vCPUs")]
    Donor {
        /// The index that the command names.
        donor: u32,
        /// Number of the guest's vCPUs.
        vcpus: u32,
    },
}

impl Command {
    /// Which command it is.
    #[must_use]
    pub fn kind(&self) -> CommandKind {
        match self {
            Self::Run(_) => CommandKind::Run,
            Self::Sleep => CommandKind::Sleep,
            Self::Stop => CommandKind::Stop,
        }
    }

    pub(crate) fn write(&self, words: &CommandWords) {
        let kind = match self {
            Self::Run(run) => {
                run.write(words);
                RUN
            }
            Self::Sleep => SLEEP,
            Self::Stop => STOP,
        };
        words.kind.store(kind, Relaxed);
    }

    /// The command to a vCPU of a guest with this number of `vcpus`.
    pub(crate) fn read(words: &CommandWords, vcpus: u32) -> Result<Self, CommandError> {
        match words.kind.load(Relaxed) {
            RUN => RunCommand::read(words, vcpus).map(Self::Run),
            SLEEP => Ok(Self::Sleep),
            STOP => Ok(Self::Stop),
            other => Err(CommandError::Kind(other)),
        }
    }
}

impl RunCommand {
    fn write(&self, words: &CommandWords) {
        let donated = self.donated.map_or(0, |_| RING_DONATED);
        let deferred = if self.is_deferred { RING_DEFER } else { 0 };
        let Donated { donor, lock } = self.donated.unwrap_or(Donated { donor: 0, lock: 0 });
        words.until_ns.store(self.until.unwrap_or(NO_END), Relaxed);
        words.host_cpu.store(self.host_cpu, Relaxed);
        words.ring.store(donated | deferred, Relaxed);
        words.donor.store(donor, Relaxed);
        words.ring_lock.store(lock, Relaxed);
        words.stolen_ns.store(self.stolen_ns, Relaxed);
    }

    fn read(words: &CommandWords, vcpus: u32) -> Result<Self, CommandError> {
        let ring = words.ring.load(Relaxed);
        if ring & !(RING_DONATED | RING_DEFER) != 0 {
            return Err(CommandError::Ring(ring));
        }
        let donor = words.donor.load(Relaxed);
        let is_donated = ring & RING_DONATED != 0;
        if is_donated && donor >= vcpus {
            return Err(CommandError::Donor { donor, vcpus });
        }
        let lock = words.ring_lock.load(Relaxed);
        let until = words.until_ns.load(Relaxed);
        Ok(Self {
            until: (until != NO_END).then_some(until),
            host_cpu: words.host_cpu.load(Relaxed),
            donated: is_donated.then_some(Donated { donor, lock }),
            is_deferred: ring & RING_DEFER != 0,
            stolen_ns: words.stolen_ns.load(Relaxed),
        })
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_run_is_read_as_it_was_written(
            until in proptest::option::of(0..NO_END),
            host_cpu: u32,
            donated in proptest::option::of((0..4_u32, any::<u64>())),
            is_deferred: bool,
            stolen_ns: u64,
        ) {
            let donated = donated.map(|(donor, lock)| Donated { donor, lock });
            let run = RunCommand { until, host_cpu, donated, is_deferred, stolen_ns };
            let words = CommandWords::default();
            Command::Run(run).write(&words);
            prop_assert_eq!(Command::read(&words, 4), Ok(Command::Run(run)));
        }

        #[test]
        fn any_words_are_read_as_a_command_within_bounds_or_refused(
            kind in 0..5_u32, ring in 0..8_u32, donor in 0..8_u32, vcpus in 1..4_u32,
        ) {
            let words = CommandWords::default();
            words.kind.store(kind, Relaxed);
            words.ring.store(ring, Relaxed);
            words.donor.store(donor, Relaxed);
            match Command::read(&words, vcpus) {
                Ok(Command::Run(run)) => {
                    prop_assert!(run.donated.is_none_or(|donated| donated.donor < vcpus));
                    prop_assert!(ring < 4);
                }
                Ok(_) => prop_assert!(kind == SLEEP || kind == STOP),
                Err(CommandError::Kind(other)) => prop_assert!(other == 0 || other > STOP),
                Err(CommandError::Ring(bits)) => prop_assert!(bits >= 4),
                Err(CommandError::Donor { donor, .. }) => prop_assert!(donor >= vcpus),
            }
        }
    }

    #[test]
    fn sleep_and_stop_are_read_as_they_were_written() {
        let words = CommandWords::default();
        for command in [Command::Sleep, Command::Stop] {
            command.write(&words);
            assert_eq!(Command::read(&words, 1), Ok(command));
        }
    }
}
