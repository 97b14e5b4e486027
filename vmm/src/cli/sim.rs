//! The flags of `baton sim`.

use baton_config::values::Switch;
use clap::{Args, ValueEnum};
use vcpu_sched::PolicyKind;

/// Flags of `baton sim`.
#[derive(Debug, Args)]
pub struct SimArgs {
    /// Scenario: preemption, throttled-holder, inversion or random
    #[arg(default_value = "inversion")]
    pub scenario: String,
    /// Number of the random scenario; each number has a scenario of its own [default: 1]
    #[arg(long)]
    pub seed: Option<u64>,
    /// The policy
    #[arg(long, default_value = "baton")]
    pub sched: SimSched,
    /// Run a preempted lock holder on its waiters' budgets
    #[arg(long, default_value = "on")]
    pub proxy: Switch,
}

/// The policies that can be simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SimSched {
    /// Baton's own.
    Baton,
    /// Equal slices in turn, for comparison. It takes no reservations and does not proxy.
    RoundRobin,
}

impl SimSched {
    /// The policy.
    #[must_use]
    pub fn policy(self) -> PolicyKind {
        match self {
            Self::Baton => PolicyKind::Deadline,
            Self::RoundRobin => PolicyKind::RoundRobin,
        }
    }
}
