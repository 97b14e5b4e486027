//! What executors report about processes of guests: they cannot wait, so the thread of the link does what follows.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use baton_host::executor::ProcessReport;
use baton_link::LinkError;
use baton_link::connection::Connection;
use baton_os::event::Event;

/// The end of the executors.
#[derive(Debug)]
pub(super) struct Failures {
    failures: Mutex<Sender<(u64, LinkError)>>,
    event: Arc<Event>,
}

/// Both ends. `event` is set for each report.
pub(super) fn failures(event: Arc<Event>) -> (Arc<Failures>, Receiver<(u64, LinkError)>) {
    let (failures, receiver) = channel();
    let failures = Mutex::new(failures);
    (Arc::new(Failures { failures, event }), receiver)
}

/// What executors report of the process at the other end of one connection.
#[derive(Debug)]
pub(super) struct FailureReport {
    failures: Arc<Failures>,
    connection: Weak<Connection>,
}

impl FailureReport {
    pub(super) fn of(failures: &Arc<Failures>, connection: &Arc<Connection>) -> Self {
        Self {
            failures: Arc::clone(failures),
            connection: Arc::downgrade(connection),
        }
    }
}

impl ProcessReport for FailureReport {
    fn failed(&self, number: u64, error: &LinkError) {
        // Held by another executor for as long as it takes to put a number into a list.
        let failures = &self.failures;
        let sender = failures
            .failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // The receiver is gone only when the pool ends.
        let _ = sender.send((number, *error));
        drop(sender);
        failures.event.set();
    }

    fn has_left(&self) -> bool {
        let connection = self.connection.upgrade();
        connection.is_none_or(|connection| connection.has_hung_up())
    }

    fn notice(&self, number: u64, what: &str) {
        // The log has a thread of its own, so this does not wait.
        tracing::warn!(number, what, "guest");
    }
}
