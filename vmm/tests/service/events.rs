//! What the pool reports while a test lasts.

use std::io::{BufRead, BufReader};
use std::sync::{Arc, Mutex};
use std::thread;

use baton_api::{Event, EventKind, GuestChange};

use crate::common::Running;

use super::pool::ServicePool;

/// The output of `baton events --json`.
pub struct Events {
    seen: Arc<Mutex<Vec<EventKind>>>,
    _process: Running,
}

impl Events {
    /// Follows the events of `pool` from now on. Its guest `name`, whose vCPUs have no reservations, is given the
    /// weight that it has until the first events come.
    pub fn follow(pool: &ServicePool, name: &str) -> Self {
        let mut process = Running::spawn(&mut pool.place().command(&["events", "--json"]));
        let lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let seen: Arc<Mutex<Vec<_>>> = Arc::default();
        let to = Arc::clone(&seen);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event: Event = serde_json::from_str(&line).expect("an event");
                to.lock().expect("lock").push(event.kind);
            }
        });
        let weight = GuestChange {
            weight: Some(100),
            ..GuestChange::default()
        };
        pool.until("events come", |pool| {
            // The guest may come to its end.
            let _ = pool.client().change(name, &weight);
            seen.lock().expect("lock").last().map(drop)
        });
        Self {
            seen,
            _process: process,
        }
    }

    /// All events so far.
    pub fn seen(&self) -> Vec<EventKind> {
        self.seen.lock().expect("lock").clone()
    }

    /// How many events `which` holds for.
    pub fn count(&self, which: impl Fn(&EventKind) -> bool) -> usize {
        self.seen().iter().filter(|event| which(event)).count()
    }
}
