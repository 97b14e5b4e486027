//! What happens in the pool, for the log and for clients that follow it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use baton_api::{Event, EventKind};
use baton_os::sys;
use tokio::sync::broadcast::{self, Receiver, Sender};
use vcpu_sched::Ns;

use crate::notice_limit::NoticeLimit;

/// Events that are kept for a client that is slow.
const KEPT: usize = 1024;

/// Users whose lines are counted, at most. One more makes those be forgotten that have caused none of late.
const MAX_USERS: usize = 256;

/// Publishes events.
#[derive(Clone, Debug)]
pub struct Events {
    sender: Sender<Event>,
    /// Lines of the log that each user but root has caused.
    lines: Arc<Mutex<HashMap<u32, NoticeLimit>>>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            sender: broadcast::channel(KEPT).0,
            lines: Arc::default(),
        }
    }
}

impl Events {
    /// Logs `kind`, and sends it to all who follow. Does not block.
    pub fn publish(&self, kind: EventKind) {
        log(&kind);
        self.send(kind);
    }

    /// The same for what user `uid` has caused, who may cause it in a loop: he has so many lines of the log.
    pub fn publish_of(&self, uid: u32, kind: EventKind) {
        if self.may_log(uid) {
            log(&kind);
        }
        self.send(kind);
    }

    /// Whether another line of the log may be about what user `uid` has done. Logs how many were not, before the next.
    pub(crate) fn may_log(&self, uid: u32) -> bool {
        let unlogged = self.line_of(uid, sys::monotonic_ns());
        if let Some(unlogged @ 1..) = unlogged {
            tracing::warn!(
                uid,
                unlogged,
                "a user has caused more lines than are logged"
            );
        }
        unlogged.is_some()
    }

    fn send(&self, kind: EventKind) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let event = Event {
            time_ms: now.map_or(0, |since| since.as_millis() as u64),
            kind,
        };
        // Nobody may follow at the moment.
        let _ = self.sender.send(event);
    }

    /// Whether user `uid` may have another line of the log at the time `now`, ns, and how many he was refused before.
    fn line_of(&self, uid: u32, now: Ns) -> Option<u64> {
        if uid == 0 {
            return Some(0);
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= MAX_USERS {
            lines.retain(|_, limit| !limit.is_unused(now));
        }
        lines
            .entry(uid)
            .or_insert_with(NoticeLimit::of_user)
            .take(now)
    }

    /// All events from now on.
    #[must_use]
    pub fn follow(&self) -> Receiver<Event> {
        self.sender.subscribe()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_fills_neither_the_log_nor_the_memory_and_others_have_their_lines() {
        let events = Events::default();
        let lines = |uid| (0..1_000).filter_map(|_| events.line_of(uid, 5)).count();
        assert_eq!(lines(1000), 64);
        assert_eq!((lines(1000), lines(1001), lines(0)), (0, 64, 1_000));
        assert_eq!(events.line_of(1000, 5 + 250_000_000), Some(1_936));
        for uid in 0..100_000 {
            let _ = events.line_of(uid, 1_000_000_000_000 * u64::from(uid));
        }
        let users = events.lines.lock().expect("no panic").len();
        assert!(users <= MAX_USERS + 1, "{users}");
    }

    #[test]
    fn what_is_not_logged_is_sent_to_those_who_follow() {
        let events = Events::default();
        let mut follower = events.follow();
        let guest = "web".to_owned();
        (0..100).for_each(|_| {
            let guest = guest.clone();
            events.publish_of(1000, EventKind::Changed { guest });
        });
        assert_eq!(
            (0..200).filter(|_| follower.try_recv().is_ok()).count(),
            100
        );
    }
}
