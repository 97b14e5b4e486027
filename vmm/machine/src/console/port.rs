//! The way of a guest's output to the console's thread.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use super::account::{Account, ConsoleCount};
use super::printable;

/// Bytes to be written, and the account of the guest that printed them.
pub(super) struct Piece {
    pub(super) bytes: Box<[u8]>,
    /// How many bytes the guest printed. They are at the end of `bytes`, before they are escaped.
    pub(super) printed: usize,
    pub(super) account: Arc<Account>,
}

/// Where one guest's lines go.
#[derive(Clone, Debug)]
pub struct ConsolePort {
    queue: Option<SyncSender<Piece>>,
    prefix: Arc<str>,
    account: Arc<Account>,
}

impl ConsolePort {
    /// A port whose lines begin with `prefix` and go into `queue`.
    pub(super) fn new(queue: SyncSender<Piece>, prefix: String) -> Self {
        Self {
            queue: Some(queue),
            prefix: prefix.into(),
            account: Arc::default(),
        }
    }

    /// A port that discards output.
    #[must_use]
    pub fn discard() -> Self {
        Self {
            queue: None,
            prefix: "".into(),
            account: Arc::default(),
        }
    }

    /// CPU time that writing what the guest printed has taken since the last call, ns.
    pub fn take_cpu_ns(&self) -> u64 {
        self.account.take_cpu_ns()
    }

    /// How much is lost of what the guest prints here. The count outlives the port.
    #[must_use]
    pub fn count(&self) -> ConsoleCount {
        ConsoleCount(Arc::clone(&self.account))
    }

    /// Whether lines of several guests share the output.
    pub(super) fn is_shared(&self) -> bool {
        !self.prefix.is_empty()
    }

    /// Puts `text` into the queue, or drops it if the queue is full.
    pub(super) fn send(&self, text: &[u8]) {
        let Some(queue) = &self.queue else { return };
        let mut bytes = Vec::with_capacity(self.prefix.len() + text.len());
        bytes.extend_from_slice(self.prefix.as_bytes());
        match self.is_shared() {
            true => printable::append(&mut bytes, text),
            // The guest has the terminal for itself, and may draw on it.
            false => bytes.extend_from_slice(text),
        }
        let piece = Piece {
            bytes: bytes.into_boxed_slice(),
            printed: text.len(),
            account: Arc::clone(&self.account),
        };
        self.account.add_printed(text.len() as u64);
        // A piece for which there is no room is never written, and so counts as lost.
        let _ = queue.try_send(piece);
    }
}
