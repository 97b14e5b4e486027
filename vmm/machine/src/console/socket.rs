//! A console at a Unix socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use baton_os::listener::{Access, ListenError, OwnListener};
use rustix::event::PollFd;

use super::endpoint::{Endpoint, is_hung_up, wait_for};
use super::input::{Input, Source};
use super::output_reader::OutputReader;
use super::scrollback::Scrollback;

/// Most programs that are attached at once.
pub const MAX_CLIENTS: usize = 8;
/// When to try again to accept a program for which this process had no file left.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// A console at a Unix socket: each program that connects is attached until it hangs up. All of them get all
/// output, and the guest gets the input of all of them as it comes.
#[derive(Debug)]
pub(super) struct SocketEndpoint {
    listener: OwnListener,
    clients: Vec<Client>,
    /// Whether a program waits that could not be accepted.
    is_refused: bool,
}

/// A program that is attached, or was and has left input behind.
#[derive(Debug)]
struct Client {
    file: OwnedFd,
    /// `None` when it has hung up.
    reader: Option<OutputReader>,
    /// Whether it may send more input.
    types: bool,
}

impl SocketEndpoint {
    /// Listens at `path`, where this user alone may connect.
    ///
    /// # Errors
    /// Why this process cannot listen there.
    pub(super) fn open(path: &Path) -> Result<Self, ListenError> {
        Ok(Self {
            listener: OwnListener::bind(path, Access::OwnerOnly)?,
            clients: Vec::new(),
            is_refused: false,
        })
    }

    /// Attaches the programs that have connected.
    fn accept(&mut self, scrollback: &Scrollback) {
        self.is_refused = false;
        loop {
            let stream = match self.listener.accept() {
                Ok(stream) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => {
                    self.is_refused = true;
                    return;
                }
            };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            self.make_room();
            if self.clients.len() == MAX_CLIENTS {
                let sentence = format!(
                    "baton: {MAX_CLIENTS} programs are attached to this console already: detach one\r\n"
                );
                // A new connection has room for it.
                let _ = rustix::io::write(&stream, sentence.as_bytes());
                continue;
            }
            self.clients.push(Client {
                file: stream.into(),
                reader: Some(OutputReader::new(scrollback)),
                types: true,
            });
        }
    }

    /// Drops the input of a program that has hung up, if all places are taken.
    fn make_room(&mut self) {
        let gone = |client: &Client| client.reader.is_none();
        if self.clients.len() == MAX_CLIENTS
            && let Some(gone) = self.clients.iter().position(gone)
        {
            self.clients.remove(gone);
        }
    }
}

impl Client {
    fn serve(&mut self, scrollback: &Scrollback, input: &Input) -> usize {
        let attached = self.reader.take();
        let mut delivered = 0;
        if let Some(mut reader) = attached {
            let result = reader.deliver(self.file.as_fd(), scrollback);
            if let Ok(bytes) = result
                && !is_hung_up(self.file.as_fd())
            {
                delivered = bytes;
                self.reader = Some(reader);
            }
        }
        self.take_input(input);
        delivered
    }

    fn take_input(&mut self, input: &Input) {
        while self.types {
            match input.take_from(self.file.as_fd()) {
                Source::Ended => self.types = false,
                // What a program has left behind has an end. One that is attached may type for ever.
                Source::Open if self.reader.is_none() => {}
                Source::Open | Source::Empty => return,
            }
        }
    }

    fn is_behind(&self, scrollback: &Scrollback) -> bool {
        let reader = self.reader.as_ref();
        reader.is_some_and(|reader| reader.is_behind(scrollback))
    }
}

impl Endpoint for SocketEndpoint {
    fn files(&self, scrollback: &Scrollback, has_room: bool) -> Vec<PollFd<'_>> {
        let mut files = Vec::with_capacity(1 + self.clients.len());
        if !self.is_refused {
            // SAFETY: the listener lives as long as `self`.
            let listener = unsafe { BorrowedFd::borrow_raw(self.listener.as_raw_fd()) };
            files.push(wait_for(listener, true, false));
        }
        // The others would be reported as hung up again and again.
        let attached = self.clients.iter().filter(|c| c.reader.is_some());
        files.extend(attached.map(|client| {
            let output = client.is_behind(scrollback);
            wait_for(client.file.as_fd(), has_room && client.types, output)
        }));
        files
    }

    fn check_interval(&self) -> Option<Duration> {
        self.is_refused.then_some(RETRY_INTERVAL)
    }

    fn serve(&mut self, scrollback: &Scrollback, input: &Input) -> usize {
        self.accept(scrollback);
        let clients = self.clients.iter_mut();
        let delivered = clients.map(|client| client.serve(scrollback, input)).sum();
        self.clients.retain(|c| c.reader.is_some() || c.types);
        delivered
    }

    fn is_behind(&self, scrollback: &Scrollback) -> bool {
        self.clients.iter().any(|c| c.is_behind(scrollback))
    }
}
