//! The policies by name.

use std::fmt::Debug;

use crate::config::Config;
use crate::events::Events;
use crate::policy::Policy;
use crate::round_robin::RoundRobin;
use crate::scheduler::Scheduler;

/// The policies of this crate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PolicyKind {
    /// [`Scheduler`]: earliest deadline first, budgets, fair shares of the rest, proxy execution.
    #[default]
    Deadline,
    /// [`RoundRobin`]: equal slices in turn, for comparison.
    RoundRobin,
}

impl PolicyKind {
    /// An empty pool under this policy, which reports each decision to `events`.
    #[must_use]
    pub fn pool<E: Events + Debug + Send + 'static>(
        self,
        config: Config,
        events: E,
    ) -> Box<dyn Policy<E>> {
        match self {
            Self::Deadline => Box::new(Scheduler::with_events(config, events)),
            Self::RoundRobin => Box::new(RoundRobin::with_events(config, events)),
        }
    }
}
