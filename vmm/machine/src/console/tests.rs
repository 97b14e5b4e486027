//! Consoles that programs attach to, with real sockets and pseudo-terminals.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::{iter, thread};

use baton_config::ConsoleConfig;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;

/// A guest that has room for so much input, and what it has taken.
struct FakeGuest {
    room: Mutex<usize>,
    taken: Mutex<Vec<u8>>,
    attention: EventFd,
}

impl FakeGuest {
    fn with_room(room: usize) -> Arc<Self> {
        Arc::new(Self {
            room: Mutex::new(room),
            taken: Mutex::default(),
            attention: EventFd::new(EFD_NONBLOCK).expect("an event"),
        })
    }

    /// Makes room for `more` bytes.
    fn read(&self, more: usize) {
        *self.room.lock().expect("lock") += more;
        self.attention.write(1).expect("written");
    }

    /// Waits until the guest has taken `length` bytes, and returns all that it has.
    fn until_taken(&self, length: usize) -> Vec<u8> {
        loop {
            let taken = self.taken.lock().expect("lock").clone();
            if taken.len() >= length {
                return taken;
            }
            thread::yield_now();
        }
    }
}

impl TakesInput for FakeGuest {
    fn attention(&self) -> io::Result<EventFd> {
        self.attention.try_clone()
    }

    fn room(&self) -> usize {
        *self.room.lock().expect("lock")
    }

    fn take(&self, bytes: &[u8]) {
        let mut room = self.room.lock().expect("lock");
        *room = room.checked_sub(bytes.len()).expect("room for it");
        self.taken.lock().expect("lock").extend_from_slice(bytes);
    }
}

/// A path of a test.
fn path(name: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("baton-console-{}-{number}-{name}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let _ = fs::remove_file(&path);
    path
}

fn opened(config: &ConsoleConfig) -> GuestConsole {
    GuestConsole::open(config, || unreachable!("no standard output")).expect("a console")
}

/// A console at a socket, and the path of the socket.
fn at_socket() -> (GuestConsole, PathBuf) {
    let path = path("socket");
    (opened(&ConsoleConfig::Unix(path.clone())), path)
}

/// A console at a pseudo-terminal, and its path.
fn at_pty() -> (GuestConsole, PathBuf) {
    let console = opened(&ConsoleConfig::Pty);
    let path = console.place().expect("a terminal").to_owned();
    (console, path)
}

fn open_pty(path: &PathBuf) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.custom_flags(libc::O_NOCTTY);
    options.open(path).expect("opens")
}

/// So many bytes that a wrong place shows.
fn text(length: usize) -> Vec<u8> {
    let lines = (0..).map(|number: u32| format!("line {number}\r\n"));
    lines.flat_map(String::into_bytes).take(length).collect()
}

fn read(from: &mut impl Read, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).expect("output");
    bytes
}

#[test]
fn a_program_that_comes_late_gets_the_last_64_kib_exactly_and_then_what_follows() {
    assert_eq!(KEPT, 65_536);
    let (console, path) = at_socket();
    let all = text(300_000);
    let mut serial = LineBuffer::interactive(console.port());
    serial.write_all(&all).expect("accepted");
    for _ in 0..2 {
        let mut client = UnixStream::connect(&path).expect("connects");
        assert!(read(&mut client, KEPT) == all[all.len() - KEPT..]);
    }
    let mut client = UnixStream::connect(&path).expect("connects");
    read(&mut client, KEPT);
    serial.write_all(b"more").expect("accepted");
    assert_eq!(read(&mut client, 4), b"more");
    drop((serial, console));
    assert_eq!(client.read(&mut [0; 1]).expect("the end"), 0);
}

#[test]
fn all_attached_programs_see_all_output_and_the_guest_gets_the_input_of_all() {
    let (console, path) = at_socket();
    let guest = FakeGuest::with_room(1000);
    console.connect(Arc::clone(&guest) as _).expect("connected");
    let mut clients: Vec<_> = iter::repeat_with(|| UnixStream::connect(&path).expect("connects"))
        .take(3)
        .collect();
    let mut serial = LineBuffer::interactive(console.port());
    for (client, number) in clients.iter_mut().zip(1..) {
        client.write_all(b"x").expect("typed");
        guest.until_taken(number);
    }
    serial.write_all(b"login: ").expect("accepted");
    for client in &mut clients {
        assert_eq!(read(client, 7), b"login: ");
    }
    assert_eq!(guest.until_taken(3), b"xxx");
}

#[test]
fn two_guests_have_consoles_at_once_and_each_gets_its_own_input() {
    let ((first, path), (second, terminal)) = (at_socket(), at_pty());
    let guests = [&first, &second].map(|console| {
        let guest = FakeGuest::with_room(100);
        console.connect(Arc::clone(&guest) as _).expect("connected");
        guest
    });
    let mut socket = UnixStream::connect(path).expect("connects");
    let mut terminal = open_pty(&terminal);
    socket.write_all(b"one").expect("typed");
    terminal.write_all(b"two").expect("typed");
    assert_eq!(guests[0].until_taken(3), b"one");
    assert_eq!(guests[1].until_taken(3), b"two");
    LineBuffer::interactive(first.port())
        .write_all(b"1")
        .expect("accepted");
    LineBuffer::interactive(second.port())
        .write_all(b"2")
        .expect("accepted");
    assert_eq!(read(&mut socket, 1), b"1");
    assert_eq!(read(&mut terminal, 1), b"2");
}

#[test]
fn a_program_that_never_reads_delays_neither_the_guest_nor_another_program_nor_the_end() {
    for (console, path, is_socket) in [
        {
            let (console, path) = at_socket();
            (console, path, true)
        },
        {
            let (console, path) = at_pty();
            (console, path, false)
        },
    ] {
        let silent = match is_socket {
            true => File::from(std::os::fd::OwnedFd::from(
                UnixStream::connect(&path).expect("connects"),
            )),
            false => open_pty(&path),
        };
        let all = text(4 << 20);
        let mut serial = LineBuffer::interactive(console.port());
        serial.write_all(&all).expect("accepted");
        if is_socket {
            let mut client = UnixStream::connect(&path).expect("connects");
            assert!(read(&mut client, KEPT) == all[all.len() - KEPT..]);
        }
        assert_eq!(console.port().count().dropped(), 0);
        drop((serial, console));
        drop(silent);
    }
}

#[test]
fn input_that_a_program_has_left_behind_reaches_the_guest_as_it_reads() {
    let typed = text(500);
    let ((socket, path), (pty, terminal)) = (at_socket(), at_pty());
    for console in [socket, pty] {
        let guest = FakeGuest::with_room(0);
        console.connect(Arc::clone(&guest) as _).expect("connected");
        match console.place() == Some(&path) {
            true => {
                let mut client = UnixStream::connect(&path).expect("connects");
                client.write_all(&typed).expect("typed");
            }
            false => open_pty(&terminal).write_all(&typed).expect("typed"),
        }
        for length in (10..=500).step_by(10) {
            guest.read(10);
            assert_eq!(guest.until_taken(length), typed[..length]);
        }
    }
}

#[test]
fn a_program_that_sends_no_more_still_sees_the_output() {
    let (console, path) = at_socket();
    let mut client = UnixStream::connect(path).expect("connects");
    client.shutdown(Shutdown::Write).expect("shut down");
    let guest = FakeGuest::with_room(10);
    console.connect(Arc::clone(&guest) as _).expect("connected");
    LineBuffer::interactive(console.port())
        .write_all(b"still")
        .expect("accepted");
    assert_eq!(read(&mut client, 5), b"still");
}

#[test]
fn programs_beyond_the_limit_are_refused_with_a_sentence_and_others_take_free_places() {
    let (console, path) = at_socket();
    let connect = || UnixStream::connect(&path).expect("connects");
    let mut attached: Vec<_> = iter::repeat_with(connect).take(MAX_CLIENTS).collect();
    let mut refused = String::new();
    connect().read_to_string(&mut refused).expect("a sentence");
    assert!(refused.contains("8 programs are attached"), "{refused}");
    attached.pop();
    LineBuffer::interactive(console.port())
        .write_all(b"in")
        .expect("accepted");
    // The place is free as soon as the thread has noticed.
    loop {
        let mut text = [0; 2];
        connect().read_exact(&mut text).expect("output");
        if text == *b"in" {
            return;
        }
    }
}

#[test]
fn a_socket_is_for_its_user_alone_and_goes_with_the_console() {
    let (console, path) = at_socket();
    let status = fs::symlink_metadata(&path).expect("a file");
    assert!(status.file_type().is_socket());
    assert_eq!(status.mode() & 0o777, 0o600);
    let config = ConsoleConfig::Unix(path.clone());
    let second = GuestConsole::open(&config, ConsolePort::discard);
    assert!(
        matches!(second, Err(ConsoleError::InUse { .. })),
        "{second:?}"
    );
    drop(console);
    assert!(!path.exists());
    fs::write(&path, "notes").expect("a file");
    let taken = GuestConsole::open(&config, ConsolePort::discard);
    assert!(
        matches!(taken, Err(ConsoleError::PathTaken { .. })),
        "{taken:?}"
    );
    fs::remove_file(path).expect("still there");
}

#[test]
fn a_pseudo_terminal_is_for_its_user_alone_and_echoes_nothing_to_the_guest() {
    let (console, path) = at_pty();
    let status = fs::metadata(&path).expect("a file");
    assert!(status.file_type().is_char_device());
    assert_eq!(status.mode() & 0o777, 0o600);
    let guest = FakeGuest::with_room(100);
    console.connect(Arc::clone(&guest) as _).expect("connected");
    let mut terminal = open_pty(&path);
    LineBuffer::interactive(console.port())
        .write_all(b"login: ")
        .expect("accepted");
    assert_eq!(read(&mut terminal, 7), b"login: ");
    terminal.write_all(b"\x03root\r").expect("typed");
    assert_eq!(guest.until_taken(6), b"\x03root\r");
}

#[test]
fn each_program_that_opens_a_pseudo_terminal_gets_what_is_kept_and_no_older_rest() {
    let (console, path) = at_pty();
    let all = text(200_000);
    let mut serial = LineBuffer::interactive(console.port());
    serial.write_all(&all).expect("accepted");
    for length in [KEPT, 5_000, KEPT] {
        let mut terminal = open_pty(&path);
        let kept = &all[all.len() - KEPT..];
        assert!(read(&mut terminal, length) == kept[..length], "{length}");
        drop(terminal);
        // The thread notices at its next check that the terminal is closed.
        let mut checks = 0;
        let mut cpu_ns = 0;
        while checks < 3 {
            cpu_ns += console.port().take_cpu_ns();
            if cpu_ns > 0 {
                (checks, cpu_ns) = (checks + 1, 0);
            }
            thread::yield_now();
        }
    }
}

#[test]
fn the_rest_is_given_to_a_program_that_reads_before_a_console_ends() {
    for (console, path) in [at_socket(), at_pty()] {
        let mut serial = LineBuffer::interactive(console.port());
        serial.write_all(b"first").expect("accepted");
        let mut program: Box<dyn Read + Send> = match path.starts_with("/dev") {
            true => Box::new(open_pty(&path)),
            false => Box::new(UnixStream::connect(&path).expect("connects")),
        };
        assert_eq!(read(&mut program, 5), b"first");
        let all = text(30_000);
        serial.write_all(&all).expect("accepted");
        let reader = thread::spawn(move || read(&mut program, 30_000));
        drop((serial, console));
        assert!(reader.join().expect("no panic") == all);
    }
}

#[test]
fn a_console_goes_on_with_the_guest_that_takes_the_place_of_another() {
    let (console, path) = at_socket();
    let mut client = UnixStream::connect(path).expect("connects");
    for name in [b"first ", b"second"] {
        let guest = FakeGuest::with_room(100);
        console.connect(Arc::clone(&guest) as _).expect("connected");
        LineBuffer::interactive(console.port())
            .write_all(name)
            .expect("accepted");
        assert_eq!(read(&mut client, 6), name);
        client.write_all(b"hello").expect("typed");
        assert_eq!(guest.until_taken(5), b"hello");
        // The console does not keep a guest that has ended.
        assert_eq!(Arc::strong_count(&guest), 1);
    }
}

#[test]
fn a_file_gets_what_a_guest_prints_behind_what_it_has() {
    let path = path("file");
    for text in ["one\r\n", "two\x1b[1m\r\n"] {
        let console = opened(&ConsoleConfig::File(path.clone()));
        let mut serial = LineBuffer::interactive(console.port());
        serial.write_all(text.as_bytes()).expect("accepted");
        drop(serial);
    }
    assert_eq!(fs::read(&path).expect("a file"), b"one\r\ntwo\x1b[1m\r\n");
    assert_eq!(fs::metadata(&path).expect("a file").mode() & 0o777, 0o600);
    fs::remove_file(&path).expect("there");
    fs::create_dir(&path).expect("a directory");
    let refused = GuestConsole::open(&ConsoleConfig::File(path.clone()), ConsolePort::discard);
    let error = refused.expect_err("a directory").to_string();
    assert!(error.contains("as its console"), "{error}");
    fs::remove_dir(path).expect("there");
}
