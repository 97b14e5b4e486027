use std::fs::File;

use rustix::event::EventfdFlags;

use super::*;
use crate::message::{GuestMessage, PoolMessage};

fn hello() -> GuestMessage {
    GuestMessage::Hello { protocol: 1 }
}

fn pair() -> (Connection, Connection) {
    Connection::pair().expect("sockets")
}

fn received(connection: &Connection) -> Result<Received<GuestMessage>, ConnectionError> {
    connection.receive(Patience::DontWait)
}

/// Sends bytes and files as they are.
fn send_raw(connection: &Connection, bytes: &[u8], files: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(files)));
    }
    let flags = SendFlags::NOSIGNAL;
    net::sendmsg(connection, &[IoSlice::new(bytes)], &mut control, flags).expect("sent");
}

#[test]
fn messages_arrive_in_order_and_the_file_with_its_message() {
    let (guest, pool) = pair();
    let event = rustix::event::eventfd(7, EventfdFlags::CLOEXEC).expect("a file");
    guest.send(&hello(), None).expect("sent");
    guest
        .send(&GuestMessage::Hello { protocol: 2 }, Some(event.as_fd()))
        .expect("sent");
    let first = received(&pool).expect("a message").without_file();
    assert_eq!(first.expect("no file"), hello());
    let second = received(&pool).expect("a message");
    assert_eq!(second.message, GuestMessage::Hello { protocol: 2 });
    let file = second
        .file
        .and_then(ForeignFile::into_trusted)
        .expect("a file");
    let mut value = [0; 8];
    rustix::io::read(&file, &mut value).expect("the event");
    assert_eq!(u64::from_ne_bytes(value), 7);
    assert!(matches!(received(&pool), Err(ConnectionError::WouldBlock)));
}

#[test]
fn the_end_of_the_other_process_is_noticed_after_its_last_message() {
    let (guest, pool) = pair();
    guest.send(&hello(), None).expect("sent");
    drop(guest);
    assert!(received(&pool).is_ok());
    assert!(matches!(received(&pool), Err(ConnectionError::Closed)));
    let sent = pool.send(&PoolMessage::Changed, None);
    assert!(matches!(sent, Err(ConnectionError::Closed)));
}

#[test]
fn a_process_that_reads_nothing_does_not_make_the_sender_wait() {
    let (guest, _pool) = pair();
    let error = loop {
        if let Err(error) = guest.send(&hello(), None) {
            break error;
        }
    };
    assert!(matches!(error, ConnectionError::WouldBlock));
}

#[test]
fn packets_that_are_no_messages_are_refused_and_the_next_one_is_read() {
    let (guest, pool) = pair();
    for bytes in [&b"{"[..], b"\0", b"{\"hello\":{}}", b"[]", &[0xff; 1000]] {
        send_raw(&guest, bytes, &[]);
        assert!(matches!(received(&pool), Err(ConnectionError::Form(_))));
    }
    send_raw(&guest, &vec![b' '; MAX_MESSAGE + 1], &[]);
    assert!(matches!(received(&pool), Err(ConnectionError::TooLong)));
    guest.send(&hello(), None).expect("sent");
    assert!(received(&pool).is_ok());
}

#[test]
fn a_message_that_is_too_long_is_not_sent() {
    let (guest, _pool) = pair();
    let reason = "x".repeat(MAX_MESSAGE);
    let would_fit = None;
    let sent = guest.send(&PoolMessage::Refused { reason, would_fit }, None);
    assert!(matches!(sent, Err(ConnectionError::TooLong)));
}

/// Waits until the other end of `pipe` has been closed, which it is on another thread.
fn wait_until_closed(pipe: &OwnedFd) {
    let mut byte = [0];
    assert_eq!(rustix::io::read(pipe, &mut byte), Ok(0));
}

#[test]
fn all_files_of_a_packet_with_several_are_closed() {
    let (guest, pool) = pair();
    for count in [2, 64] {
        let (read, write) = rustix::pipe::pipe().expect("a pipe");
        send_raw(&guest, b"\"leave\"", &vec![write.as_fd(); count]);
        drop(write);
        assert!(matches!(received(&pool), Err(ConnectionError::Files)));
        wait_until_closed(&read);
    }
}

#[test]
fn a_file_that_comes_with_a_message_that_has_none_is_closed() {
    let (guest, pool) = pair();
    let (read, write) = rustix::pipe::pipe().expect("a pipe");
    guest.send(&hello(), Some(write.as_fd())).expect("sent");
    drop(write);
    let refused = received(&pool).expect("a message").without_file();
    assert!(matches!(refused, Err(ConnectionError::Files)));
    wait_until_closed(&read);
}

#[test]
fn a_file_that_comes_with_bytes_that_are_no_message_is_closed() {
    let (guest, pool) = pair();
    let (read, write) = rustix::pipe::pipe().expect("a pipe");
    send_raw(&guest, b"x", &[write.as_fd()]);
    drop(write);
    assert!(matches!(received(&pool), Err(ConnectionError::Form(_))));
    wait_until_closed(&read);
}

#[test]
fn files_without_seals_are_not_taken_as_memory_files() {
    let (guest, pool) = pair();
    let device: OwnedFd = File::open("/dev/null").expect("a device").into();
    guest.send(&hello(), Some(device.as_fd())).expect("sent");
    let file = received(&pool).expect("a message").file.expect("a file");
    assert!(matches!(
        file.into_memory_file(),
        Err(ConnectionError::Files)
    ));
}

#[test]
fn a_receiver_that_waits_gets_what_is_sent_later() {
    let (guest, pool) = pair();
    let receiver = thread::spawn(move || pool.receive::<GuestMessage>(Patience::Wait));
    guest.send(&hello(), None).expect("sent");
    let received = receiver.join().expect("a thread").expect("a message");
    assert_eq!(received.message, hello());
}
