//! What happened. The stream of events has one JSON object in each line.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// When, seconds and milliseconds since 1970, as `date` has them.
    pub time_ms: u64,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// A guest has joined.
    Joined {
        /// Its name.
        guest: String,
        /// The user to whom it belongs.
        uid: u32,
        /// Its process.
        pid: i32,
    },
    /// A guest was refused.
    Refused {
        /// Its name.
        guest: String,
        /// The user to whom it belongs.
        uid: u32,
        /// Why.
        reason: String,
    },
    /// A guest has ended and left.
    Ended {
        /// Its name.
        guest: String,
        /// Whether it ended well.
        ok: bool,
        /// How it ended.
        how: String,
    },
    /// A guest has ended, and is to start again. It stays in the pool.
    Restarting {
        /// Its name.
        guest: String,
        /// Whether it ended well.
        ok: bool,
        /// How it ended.
        how: String,
    },
    /// A guest has started again.
    Restarted {
        /// Its name.
        guest: String,
        /// How often so far.
        restarts: u32,
    },
    /// A guest's process broke the protocol or was late, and has been killed.
    Failed {
        /// Its name.
        guest: String,
        /// What it did.
        reason: String,
    },
    /// A guest gets no CPU time from now on.
    Paused {
        /// Its name.
        guest: String,
    },
    /// A paused guest runs again.
    Resumed {
        /// Its name.
        guest: String,
    },
    /// A guest has another reservation, another weight, other host CPUs or another source of hints.
    Changed {
        /// Its name.
        guest: String,
    },
    /// Somebody has ordered something of a guest.
    Ordered {
        /// Its name.
        guest: String,
        /// What.
        order: GuestOrder,
    },
    /// A host CPU of the pool cannot be used any more, or can be used again.
    Cpu {
        /// The host CPU.
        cpu: usize,
        /// Whether it cannot be used.
        away: bool,
    },
    /// The pool has got a host CPU.
    CpuAdded {
        /// The host CPU.
        cpu: usize,
    },
    /// The pool has given a host CPU up.
    CpuRemoved {
        /// The host CPU.
        cpu: usize,
    },
    /// The client was so slow that events are missing here.
    Lost {
        /// How many.
        count: u64,
    },
}

/// What was ordered of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GuestOrder {
    /// Its power button was pressed.
    PowerButton,
    /// It is to end as by a power cut.
    PowerOff,
    /// It is to boot anew.
    Reset,
    /// Its process was killed.
    Kill,
}
