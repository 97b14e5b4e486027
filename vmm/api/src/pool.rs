//! The pool, and what the caller may do.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PoolStatus {
    /// The version of the API.
    pub api: u32,
    /// The version of the program.
    pub version: String,
    /// The pool's process.
    pub pid: u32,
    /// Whether preempted holders run on their waiters' budgets.
    pub proxy: bool,
    /// The host CPUs of the pool.
    pub host_cpus: Vec<HostCpu>,
    /// Number of guests.
    pub guests: usize,
    /// Sum of all reservations, CPUs.
    pub reserved_cpus: f64,
    /// What the caller may do.
    pub you: Rights,
}

/// A host CPU of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostCpu {
    /// Its number.
    pub cpu: usize,
    /// Whether it cannot be used at the moment.
    pub away: bool,
    /// The vCPU that runs there, as `guest/index`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// CPU time spent on guests since the pool started, ns.
    pub busy_ns: u64,
}

/// Host CPUs that a pool is to get or to give up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolCpuChange {
    /// The host CPUs, such as `2-3`. All of them are changed, or none.
    pub host_cpus: String,
}

/// What the caller may do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rights {
    /// The user that called.
    pub uid: u32,
    /// Whether he may do everything, with all guests.
    pub all: bool,
    /// What he may have otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<Grant>,
}

/// What a user may have in a pool. What is absent is not bounded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Grant {
    /// Sum of the reservations of all his guests, CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_reservation: Option<f64>,
    /// Weight of each of his vCPUs without a reservation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_weight: Option<u32>,
    /// Number of vCPUs of all his guests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_vcpus: Option<u32>,
    /// Number of guests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_guests: Option<u32>,
    /// Host CPUs on which his guests may run, such as `2-3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_cpus: Option<String>,
}
