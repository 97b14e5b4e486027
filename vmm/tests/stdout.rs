//! Standard output that does not block, with a reader that is late.

mod common;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;

use baton_abi::testdev;

use common::pvh::{OWNER, PHYS32_ENTRY, elf};
use common::{Running, command, file};

/// Number of bytes that the guest prints: more than a pipe of one page and the queue of the console hold.
const PRINTED: u32 = 20_000;
const SERIAL: u32 = 0x3f8;

/// A guest that prints that many letters to its serial port and ends.
fn printer() -> PathBuf {
    let mut code = vec![0xb9]; // mov ecx
    code.extend(PRINTED.to_le_bytes());
    code.push(0xba); // mov edx
    code.extend(SERIAL.to_le_bytes());
    code.extend([0xb0, b'~']); // mov al
    code.extend([0xee, 0xe2, 0xfd]); // out dx, al; loop to it
    code.extend([0x31, 0xc0, 0xba]); // xor eax, eax; mov edx
    code.extend(u32::from(testdev::PORT_EXIT).to_le_bytes());
    code.push(0xef); // out dx, eax
    file("printer.elf", &elf(&code, OWNER, PHYS32_ENTRY))
}

/// A pipe of one page whose writer does not block.
fn narrow_pipe() -> (File, OwnedFd) {
    let (reader, writer) = io::pipe().expect("a pipe");
    let writer = OwnedFd::from(writer);
    // SAFETY: no memory is involved, and the descriptor is open.
    let set = unsafe {
        libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) == 4096
            && libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) == 0
    };
    assert!(set, "{}", io::Error::last_os_error());
    (OwnedFd::from(reader).into(), writer)
}

#[test]
fn what_a_guest_prints_is_written_or_counted_where_standard_output_does_not_block() {
    let (mut reader, writer) = narrow_pipe();
    let control = std::env::temp_dir().join(format!("baton-stdout-{}.sock", std::process::id()));
    let mut run = command(&["run", "--memory", "16M"]);
    run.arg("--kernel")
        .arg(printer())
        .arg("--control")
        .arg(&control);
    let mut child = Running::spawn(run.stdout(Stdio::from(writer)));
    // It keeps the writing end open.
    drop(run);

    // The pipe is not read while the guest runs.
    let mut has_begun = false;
    while !has_begun || control.exists() {
        has_begun = has_begun || control.exists();
        if child.try_wait().expect("a child").is_some() {
            break;
        }
        std::thread::yield_now();
    }
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("text");
    let ran = child.finish();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(text.contains("guest: done"), "no summary: {ran:?}");

    let read = text.matches('~').count();
    let dropped: usize = text
        .lines()
        .find_map(|line| {
            line.trim()
                .strip_suffix(" bytes of its console were dropped: nobody took them in time")
        })
        .map_or(0, |count| count.parse().expect("a number"));
    assert_eq!(read + dropped, PRINTED as usize);
    assert!(dropped > 0, "the pipe was not read in time");
}
