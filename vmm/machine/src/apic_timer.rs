//! How often the periodic timers of a guest's local APICs may expire.

mod limit;

pub use limit::{PeriodicTimer, TimerRates, most, possible};
pub(crate) use limit::{TooFast, limit};
