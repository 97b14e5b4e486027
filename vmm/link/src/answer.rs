//! How a vCPU's thread ended what it was commanded.

use baton_abi::hints::{self, DOORBELL_IDLE, DOORBELL_RELEASE, DOORBELL_WAIT, DOORBELL_WAKE};
use baton_machine::Doorbell;
use baton_machine::hints::HintSnapshot;

use crate::command::CommandKind;
use crate::hint_words::{self, HintError};
use crate::page::AnswerWords;
use crate::sync::atomic::Ordering::Relaxed;
use crate::vcpu_index::VcpuIndex;

const PREEMPTED: u32 = 1;
const RANG: u32 = 2;
const HALTED: u32 = 3;
const WOKEN: u32 = 4;
const ENDED: u32 = 5;

/// The answer of a vCPU's thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The run's time is over, or the vCPU was kicked. May come without a cause.
    Preempted(HintSnapshot),
    /// The vCPU rang its doorbell.
    Rang(Rang),
    /// The vCPU has halted.
    Halted(HintSnapshot),
    /// The vCPU that slept has an interrupt, or its sleep was interrupted by a kick.
    Woken,
    /// The guest has ended, or the thread runs no vCPU any more.
    Ended,
}

/// A doorbell with what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rang {
    /// The doorbell.
    pub doorbell: Doorbell,
    /// Of [`Doorbell::Idle`]: when the vCPU wakes by itself, `CLOCK_MONOTONIC` ns. Of
    /// [`Doorbell::Release`]: the lock that was handed over. `None`: there is no such time or lock.
    pub payload: Option<u64>,
    /// The vCPU's hints.
    pub hints: HintSnapshot,
}

/// An answer makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The reason is none of the known ones.
    #[error("reason {0} is unknown")]
    Reason(u32),
    /// The reason does not end such a command.
    #[error("reason {reason} does not answer the command {command:?}")]
    NotOfCommand {
        /// The reason in the page.
        reason: u32,
        /// The command.
        command: CommandKind,
    },
    /// The doorbell is none that a vCPU of this guest can ring.
    #[error("doorbell {0:#x} makes no sense")]
    Doorbell(u32),
    /// The hints make no sense.
    #[error(transparent)]
    Hints(#[from] HintError),
}

impl Answer {
    pub(crate) fn write(&self, words: &AnswerWords) {
        let reason = match self {
            Self::Preempted(hints) => {
                hint_words::write(hints, words);
                PREEMPTED
            }
            Self::Rang(rang) => {
                rang.write(words);
                RANG
            }
            Self::Halted(hints) => {
                hint_words::write(hints, words);
                HALTED
            }
            Self::Woken => WOKEN,
            Self::Ended => ENDED,
        };
        words.reason.store(reason, Relaxed);
    }

    /// The answer of the vCPU at `place` to `command`.
    pub(crate) fn read(
        words: &AnswerWords,
        command: CommandKind,
        place: VcpuIndex,
    ) -> Result<Self, AnswerError> {
        use CommandKind::{Run, Sleep};
        let reason = words.reason.load(Relaxed);
        match (reason, command) {
            (PREEMPTED, Run) => Ok(Self::Preempted(hint_words::read(words, place)?)),
            (RANG, Run) => Rang::read(words, place).map(Self::Rang),
            (HALTED, Run) => Ok(Self::Halted(hint_words::read(words, place)?)),
            (WOKEN, Sleep) => Ok(Self::Woken),
            (ENDED, _) => Ok(Self::Ended),
            (PREEMPTED..=ENDED, command) => Err(AnswerError::NotOfCommand { reason, command }),
            _ => Err(AnswerError::Reason(reason)),
        }
    }
}

impl Rang {
    fn write(&self, words: &AnswerWords) {
        hint_words::write(&self.hints, words);
        words.doorbell.store(raw_doorbell(self.doorbell), Relaxed);
        words.payload.store(self.payload.unwrap_or(0), Relaxed);
    }

    fn read(words: &AnswerWords, place: VcpuIndex) -> Result<Self, AnswerError> {
        let raw = words.doorbell.load(Relaxed);
        let doorbell = Doorbell::decode(raw, place.of).ok_or(AnswerError::Doorbell(raw))?;
        Ok(Self {
            doorbell,
            payload: Some(words.payload.load(Relaxed)).filter(|&payload| payload != 0),
            hints: hint_words::read(words, place)?,
        })
    }
}

/// The value that the guest has rung.
fn raw_doorbell(doorbell: Doorbell) -> u32 {
    match doorbell {
        Doorbell::Wait => hints::doorbell(DOORBELL_WAIT, 0),
        Doorbell::Release { to } => hints::doorbell(DOORBELL_RELEASE, to.map_or(0, |to| to + 1)),
        Doorbell::Idle => hints::doorbell(DOORBELL_IDLE, 0),
        Doorbell::Wake { target } => hints::doorbell(DOORBELL_WAKE, target),
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests;
