//! What executors report about processes of guests: they cannot wait, so the thread of the link does what follows.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use baton_host::executor::ProcessReport;
use baton_link::LinkError;
use baton_os::event::Event;

/// The end of the executors.
#[derive(Debug)]
pub(super) struct FailureReport {
    failures: Mutex<Sender<(u64, LinkError)>>,
    event: Arc<Event>,
}

/// Both ends. `event` is set for each report.
pub(super) fn failures(event: Arc<Event>) -> (Arc<FailureReport>, Receiver<(u64, LinkError)>) {
    let (failures, receiver) = channel();
    let failures = Mutex::new(failures);
    (Arc::new(FailureReport { failures, event }), receiver)
}

impl ProcessReport for FailureReport {
    fn failed(&self, number: u64, error: &LinkError) {
        // Held by another executor for as long as it takes to put a number into a list.
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        // The receiver is gone only when the pool ends.
        let _ = failures.send((number, *error));
        drop(failures);
        self.event.set();
    }

    fn notice(&self, number: u64, what: &str) {
        // The log has a thread of its own, so this does not wait.
        tracing::warn!(number, what, "guest");
    }
}
