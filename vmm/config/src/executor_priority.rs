//! The priority of executors for the host's scheduler.

use std::fmt;

use thiserror::Error;

/// Which scheduling policy of the host's kernel the threads that run vCPUs have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExecutorPriority {
    /// The default policy, under which they compete with all other programs.
    #[default]
    Off,
    /// `SCHED_FIFO` with this priority, from 1 to [`ExecutorPriority::MAX`]. They run before all programs of
    /// the default policy.
    Fifo(u8),
}

impl ExecutorPriority {
    /// The highest priority. Threads that have to preempt executors get one more, and the kernel's interrupt
    /// threads, which have 50, stay above all of them.
    pub const MAX: u8 = 48;

    /// The priority of threads that have to preempt executors; `None` without a priority.
    #[must_use]
    pub fn above(self) -> Option<u8> {
        match self {
            Self::Off => None,
            Self::Fifo(priority) => Some(priority.saturating_add(1)),
        }
    }
}

/// A text that is no priority of executors.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("'{0}' is not a priority from 1 to {max}, as in 1, and not off", max = ExecutorPriority::MAX)]
pub struct ParseExecutorPriorityError(String);

impl std::str::FromStr for ExecutorPriority {
    type Err = ParseExecutorPriorityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "off" => Ok(Self::Off),
            number => match number.parse() {
                Ok(priority @ 1..=Self::MAX) => Ok(Self::Fifo(priority)),
                _ => Err(ParseExecutorPriorityError(text.to_owned())),
            },
        }
    }
}

impl fmt::Display for ExecutorPriority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Fifo(priority) => priority.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_leaves_room_below_the_interrupt_threads() {
        for (text, priority) in [
            ("off", Some(ExecutorPriority::Off)),
            ("1", Some(ExecutorPriority::Fifo(1))),
            ("48", Some(ExecutorPriority::Fifo(48))),
            ("0", None),
            ("49", None),
            ("-1", None),
            ("high", None),
        ] {
            let parsed = text.parse::<ExecutorPriority>();
            assert_eq!(parsed.clone().ok(), priority, "{text}");
            match parsed {
                Ok(parsed) => assert_eq!(parsed.to_string(), text),
                Err(error) => assert!(error.to_string().contains("from 1 to 48"), "{error}"),
            }
        }
        assert_eq!(
            ExecutorPriority::Fifo(ExecutorPriority::MAX).above(),
            Some(49)
        );
        assert_eq!(ExecutorPriority::Off.above(), None);
    }
}
