//! A control socket: packets with one message each, and at most one file.
//!
//! A file that another process sends can be anything. Closing some kinds of files waits for whoever serves
//! them, so a file that is not wanted is closed on a thread of its own. A connection that sent one is to be
//! ended.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs;
use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest message, bytes: more than a guest of [`MAX_VCPUS`](crate::pages::MAX_VCPUS) vCPUs needs.
pub const MAX_MESSAGE: usize = 128 << 10;

/// How long a process waits for a pool that accepts no connection.
pub const LONGEST_CONNECT: Duration = Duration::from_secs(10);

/// A message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The other process has closed the connection, or has ended.
    #[error("the other process has closed the control socket")]
    Closed,
    /// There is no message, or no room for another one.
    #[error("the other process does not answer on the control socket")]
    WouldBlock,
    /// The message is longer than [`MAX_MESSAGE`].
    #[error("a message on the control socket is longer than {MAX_MESSAGE} bytes")]
    TooLong,
    /// The packet came with more than one file, or none where one belongs, or one where none belongs.
    #[error("a message on the control socket came with the wrong number of files")]
    Files,
    /// The bytes are no message of this version.
    #[error(
        "a message on the control socket cannot be read: {0}; use the same version of `baton` for both"
    )]
    Form(#[from] serde_json::Error),
    /// The host refused.
    #[error("the control socket failed: {0}")]
    Host(Errno),
}

impl From<Errno> for ConnectionError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => Self::Closed,
            Errno::AGAIN => Self::WouldBlock,
            Errno::MSGSIZE | Errno::NOBUFS => Self::TooLong,
            error => Self::Host(error),
        }
    }
}

/// A file that another process has sent.
#[derive(Debug)]
pub struct ForeignFile(Option<OwnedFd>);

impl ForeignFile {
    /// The file, to be checked before use.
    ///
    /// # Errors
    /// [`ConnectionError::Files`] if its kind has no seals, so that it is no memory file.
    pub fn into_memory_file(mut self) -> Result<OwnedFd, ConnectionError> {
        // The kernel answers this itself, whoever serves the file.
        match self.0.take_if(|file| fs::fcntl_get_seals(file).is_ok()) {
            Some(file) => Ok(file),
            None => Err(ConnectionError::Files),
        }
    }

    /// The file as one of a process that is trusted.
    #[must_use]
    pub fn into_trusted(mut self) -> Option<OwnedFd> {
        self.0.take()
    }
}

impl Drop for ForeignFile {
    fn drop(&mut self) {
        if let Some(file) = self.0.take() {
            // Without a thread the closure is dropped here, and the file with it.
            let _ = thread::Builder::new()
                .name("close".into())
                .spawn(move || drop(file));
        }
    }
}

/// A message, and the file that came with it.
#[derive(Debug)]
pub struct Received<M> {
    /// The message.
    pub message: M,
    /// The file.
    pub file: Option<ForeignFile>,
}

impl<M> Received<M> {
    /// The message of a packet without a file.
    ///
    /// # Errors
    /// [`ConnectionError::Files`] if there is a file.
    pub fn without_file(self) -> Result<M, ConnectionError> {
        match self.file {
            None => Ok(self.message),
            Some(_) => Err(ConnectionError::Files),
        }
    }
}

/// Whether to wait for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Until there is one.
    Wait,
    /// Not at all.
    DontWait,
}

/// One end of a control socket.
#[derive(Debug)]
pub struct Connection(OwnedFd);

impl Connection {
    /// Both ends of a connection within this process.
    ///
    /// # Errors
    /// If this process has no file left.
    pub fn pair() -> Result<(Self, Self), ConnectionError> {
        let (one, other) = net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self(one), Self(other)))
    }

    /// Connects to the pool that listens at `path`. Waits at most [`LONGEST_CONNECT`] for one that accepts nothing.
    ///
    /// # Errors
    /// If none listens there, or accepts nothing, or this user may not connect.
    pub fn connect(path: &Path) -> Result<Self, ConnectionError> {
        let kind = SocketType::SEQPACKET;
        let socket = net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        net::sockopt::set_socket_timeout(
            &socket,
            net::sockopt::Timeout::Send,
            Some(LONGEST_CONNECT),
        )?;
        net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self(socket))
    }

    /// Whether the other process has closed its end, or has ended. What it sent before can still be received.
    #[must_use]
    pub fn has_hung_up(&self) -> bool {
        let mut polled = [PollFd::new(&self.0, PollFlags::RDHUP)];
        let now = Timespec::try_from(Duration::ZERO).ok();
        match rustix::event::poll(&mut polled, now.as_ref()) {
            Ok(_) => polled[0]
                .revents()
                .intersects(PollFlags::RDHUP | PollFlags::HUP),
            // A poll that fails shows nothing.
            Err(_) => false,
        }
    }

    /// Sends a message, with a file if one is given. Does not wait for room.
    ///
    /// # Errors
    /// If the other process is gone, or has left so many messages unread that there is no room.
    pub fn send<M: Serialize>(
        &self,
        message: &M,
        file: Option<BorrowedFd<'_>>,
    ) -> Result<(), ConnectionError> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MAX_MESSAGE {
            return Err(ConnectionError::TooLong);
        }
        let files = file.as_slice();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(ConnectionError::Files);
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        net::sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, flags)?;
        Ok(())
    }

    /// Receives the next message.
    ///
    /// # Errors
    /// If the other process is gone, or sent what is no message. Files that came with it are closed.
    pub fn receive<M: DeserializeOwned>(
        &self,
        patience: Patience,
    ) -> Result<Received<M>, ConnectionError> {
        let mut bytes = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = match patience {
            Patience::Wait => RecvFlags::CMSG_CLOEXEC,
            Patience::DontWait => RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
        };
        let packet = rustix::io::retry_on_intr(|| {
            let mut buffers = [IoSliceMut::new(&mut bytes)];
            net::recvmsg(&self.0, &mut buffers, &mut control, flags)
        })?;
        let mut files = received_files(&mut control);
        if packet.flags.contains(ReturnFlags::CTRUNC) || files.len() > 1 {
            return Err(ConnectionError::Files);
        }
        if packet.flags.contains(ReturnFlags::TRUNC) {
            return Err(ConnectionError::TooLong);
        }
        // No message is empty, so this is the end of the connection, or as good as one.
        if packet.bytes == 0 {
            return Err(ConnectionError::Closed);
        }
        Ok(Received {
            message: serde_json::from_slice(&bytes[..packet.bytes])?,
            file: files.pop(),
        })
    }
}

fn received_files(control: &mut RecvAncillaryBuffer<'_>) -> Vec<ForeignFile> {
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            files.extend(received.map(|file| ForeignFile(Some(file))));
        }
    }
    files
}

impl From<OwnedFd> for Connection {
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

impl From<Connection> for OwnedFd {
    fn from(connection: Connection) -> Self {
        connection.0
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests;
