//! What happens in the pool, for the log and for clients that follow it.

use std::time::{SystemTime, UNIX_EPOCH};

use baton_api::{Event, EventKind};
use tokio::sync::broadcast::{self, Receiver, Sender};

/// Events that are kept for a client that is slow.
const KEPT: usize = 1024;

/// Publishes events.
#[derive(Clone, Debug)]
pub struct Events(Sender<Event>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::channel(KEPT).0)
    }
}

impl Events {
    /// Logs `kind`, and sends it to all who follow. Does not block.
    pub fn publish(&self, kind: EventKind) {
        log(&kind);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let event = Event {
            time_ms: now.map_or(0, |since| since.as_millis() as u64),
            kind,
        };
        // Nobody may follow at the moment.
        let _ = self.0.send(event);
    }

    /// All events from now on.
    #[must_use]
    pub fn follow(&self) -> Receiver<Event> {
        self.0.subscribe()
    }
}

fn log(kind: &EventKind) {
    match kind {
        EventKind::Joined { guest, uid, pid } => {
            tracing::info!(guest, uid, pid, "guest has joined");
        }
        EventKind::Refused { guest, uid, reason } => {
            tracing::warn!(guest, uid, reason, "guest was refused");
        }
        EventKind::Ended { guest, ok, how } => tracing::info!(guest, ok, how, "guest has ended"),
        EventKind::Failed { guest, reason } => {
            tracing::error!(guest, reason, "guest's process has failed");
        }
        EventKind::Restarting { guest, ok, how } => {
            tracing::info!(guest, ok, how, "guest has ended and starts again");
        }
        EventKind::Restarted { guest, restarts } => {
            tracing::info!(guest, restarts, "guest has started again");
        }
        EventKind::Paused { guest } => tracing::info!(guest, "guest is paused"),
        EventKind::Resumed { guest } => tracing::info!(guest, "guest is resumed"),
        EventKind::Changed { guest } => tracing::info!(guest, "guest has changed"),
        EventKind::Ordered { guest, order } => {
            tracing::info!(guest, ?order, "guest was given an order");
        }
        EventKind::CpuAdded { cpu } => tracing::info!(cpu, "pool has got a host CPU"),
        EventKind::CpuRemoved { cpu } => tracing::info!(cpu, "pool has given up a host CPU"),
        EventKind::Cpu { cpu, away } => tracing::warn!(cpu, away, "host CPU has changed"),
        EventKind::Lost { count } => tracing::warn!(count, "events are lost"),
    }
}
