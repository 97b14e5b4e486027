//! The flags of `baton sim`.

use baton_config::values::Switch;
use clap::Args;

/// Flags of `baton sim`.
#[derive(Debug, Args)]
pub struct SimArgs {
    /// Scenario: preemption, throttled-holder, inversion or random
    #[arg(default_value = "inversion")]
    pub scenario: String,
    /// Number of the random scenario; each number has a scenario of its own [default: 1]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Run a preempted lock holder on its waiters' budgets
    #[arg(long, default_value = "on")]
    pub proxy: Switch,
}
