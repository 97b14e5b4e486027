//! The way of a guest's output to the thread of its console.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use super::account::{Account, ConsoleCount};
use super::scrollback::Scrollback;

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
    way: Way,
    prefix: Arc<str>,
    account: Arc<Account>,
}

#[derive(Clone, Debug)]
enum Way {
    /// Output is discarded.
    None,
    /// To a thread that writes all of it, or what there is room for in its queue.
    Queue(SyncSender<Piece>),
    /// To readers, each of which takes what it can.
    Kept(Arc<Scrollback>),
}

impl ConsolePort {
    /// A port whose lines begin with `prefix` and go into `queue`.
    pub(super) fn new(queue: SyncSender<Piece>, prefix: String) -> Self {
        Self {
            way: Way::Queue(queue),
            prefix: prefix.into(),
            account: Arc::default(),
        }
    }

    /// A port whose output is kept in `scrollback`. `account` is charged for serving its readers.
    pub(super) fn kept(scrollback: Arc<Scrollback>, account: Arc<Account>) -> Self {
        Self {
            way: Way::Kept(scrollback),
            prefix: "".into(),
            account,
        }
    }

    /// A port that discards output.
    #[must_use]
    pub fn discard() -> Self {
        Self {
            way: Way::None,
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

    /// Puts `text` into the scrollback, or into the queue unless that is full.
    pub(super) fn send(&self, text: &[u8]) {
        match &self.way {
            Way::None => {}
            Way::Queue(queue) => self.put(queue, text),
            Way::Kept(scrollback) => scrollback.push(text),
        }
    }

    fn put(&self, queue: &SyncSender<Piece>, text: &[u8]) {
        let mut bytes = Vec::with_capacity(self.prefix.len() + text.len());
        bytes.extend_from_slice(self.prefix.as_bytes());
        match self.is_shared() {
            true => baton_os::printable::append(&mut bytes, text),
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
