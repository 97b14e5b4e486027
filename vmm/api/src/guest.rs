//! A guest and its vCPUs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// All guests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GuestList {
    /// In the order in which they joined.
    pub guests: Vec<Guest>,
}

/// What a guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum GuestState {
    /// The policy decides when its vCPUs run.
    Running,
    /// It gets no CPU time.
    Paused,
    /// It has ended, and is to start again.
    Restarting,
    /// It has ended, and is about to leave.
    Ended,
}

impl GuestState {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Ended => "ended",
        }
    }
}

/// A guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Guest {
    /// Its name.
    pub name: String,
    /// What it does.
    pub state: GuestState,
    /// The user to whom it belongs; absent for a guest that runs in the pool's own process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Its process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The socket of its console.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<String>,
    /// Where its hints come from, such as `page`.
    pub hints: String,
    /// How often it has been started again in its process.
    #[serde(default)]
    pub restarts: u32,
    /// Sum of its reservations, CPUs.
    pub reserved_cpus: f64,
    /// Its vCPUs, in order.
    pub vcpus: Vec<Vcpu>,
}

/// A vCPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Vcpu {
    /// Its index.
    pub index: u32,
    /// What it does: `running`, `carrying`, `runnable`, `parked`, `throttled`, `halted`, `paused` or `gone`.
    pub state: String,
    /// The host CPU on which it is, if it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<usize>,
    /// Its reservation, such as `5ms/10ms,hard`. Absent: it has a weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<String>,
    /// Its weight in what reservations leave. Absent: it has a reservation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// The host CPUs on which it may run, such as `2-3`. Absent: all of the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_cpus: Option<String>,
    /// CPU time that it has had, ns.
    pub ran_ns: u64,
    /// Time for which it waited for a CPU, ns.
    pub waited_ns: u64,
    /// Number of periods in which its budget did not come in time.
    pub deadline_misses: u64,
}
