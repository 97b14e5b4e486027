//! The terminal of the user: it belongs to the guest while the run is in the foreground, and has its former
//! modes after every end of the run.

mod common;

use std::arch::global_asm;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use baton_abi::testdev;

use common::file;
use common::pvh::{OWNER, PHYS32_ENTRY, elf};
use common::session::Session;

// Enables input from its serial port, and prints without end.
global_asm!(
    ".pushsection .rodata.baton_tty_guest, \"a\"",
    ".code32",
    ".globl baton_tty_guest",
    "baton_tty_guest:",
    "mov edx, 0x3f9",
    "mov al, 1",
    "out dx, al",
    "2:",
    "mov edx, {console}",
    "mov al, 46", // a dot
    "out dx, al",
    "mov al, 10",
    "out dx, al",
    "mov ecx, 20000",
    "3:",
    "loop 3b",
    "jmp 2b",
    ".globl baton_tty_guest_end",
    "baton_tty_guest_end:",
    ".code64",
    ".popsection",
    console = const testdev::PORT_CONSOLE,
);

unsafe extern "C" {
    static baton_tty_guest: u8;
    static baton_tty_guest_end: u8;
}

/// The guest above.
fn kernel() -> String {
    let (from, to) = (&raw const baton_tty_guest, &raw const baton_tty_guest_end);
    // SAFETY: the assembly above, from its first label to its last.
    let code = unsafe { std::slice::from_raw_parts(from, to as usize - from as usize) };
    let kernel = file("terminal.elf", &elf(code, OWNER, PHYS32_ENTRY));
    kernel.to_string_lossy().into_owned()
}

/// `baton` with the guest, alone on the terminal.
fn of_baton() -> Session {
    let command = common::command(&["run", "--control", "off", "--kernel", &kernel()]);
    Session::start(command)
}

/// A shell with job control that runs `script`, in which `$0` and `"$@"` are `baton` with the guest.
fn of_shell(script: &str) -> Session {
    let mut command = Command::new("sh");
    common::own_no_cpus(&mut command);
    command.args(["-mc", script, env!("CARGO_BIN_EXE_baton")]);
    command.args(["run", "--late-halts", "allow", "--control", "off"]);
    command.args(["--kernel", &kernel()]);
    Session::start(command)
}

fn kill(pid: i32, signal: i32) {
    // SAFETY: no memory is involved.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

#[test]
fn every_end_gives_the_terminal_its_modes_back() {
    for (signal, is_killed) in [
        (libc::SIGTERM, false),
        (libc::SIGHUP, false),
        (libc::SIGQUIT, true),
        (libc::SIGABRT, true),
        (libc::SIGSEGV, true),
    ] {
        let mut session = of_baton();
        session.until("the terminal is raw", Session::is_raw);
        session.leader.signal(signal);
        let status = session.leader.wait().expect("it ends");
        assert_eq!(
            status.signal(),
            is_killed.then_some(signal),
            "{}",
            session.text()
        );
        let usual = libc::ICANON | libc::ECHO | libc::ISIG;
        let (local, input) = session.modes();
        assert_eq!(local & usual, usual, "signal {signal}");
        assert_ne!(input & libc::ICRNL, 0, "signal {signal}");
    }
}

#[test]
fn a_terminal_whose_modes_a_shell_has_set_is_the_guests_again_after_a_stop() {
    let mut session = of_baton();
    let cooked = (libc::ICANON | libc::ECHO | libc::ISIG, libc::ICRNL);
    for _ in 0..3 {
        session.until("the terminal is raw", Session::is_raw);
        session.leader.signal(libc::SIGSTOP);
        let pid = i32::try_from(session.leader.id()).expect("a process");
        let mut status = 0;
        // SAFETY: the status is written; the child is ours.
        let stopped = unsafe { libc::waitpid(pid, &raw mut status, libc::WUNTRACED) };
        assert!(stopped == pid && libc::WIFSTOPPED(status));
        session.set_modes(cooked);
        session.leader.signal(libc::SIGCONT);
    }
    session.until("the terminal is raw", Session::is_raw);
    session.leader.signal(libc::SIGTERM);
    session.leader.wait().expect("it ends");
    assert_eq!(session.modes(), cooked);
}

#[test]
fn a_stop_by_the_user_gives_the_terminal_back_and_fg_takes_it_again() {
    let script = "sh -c 'echo process $$; exec \"$0\" \"$@\"' \"$0\" \"$@\"; echo stopped; read x; \
                  fg; echo over $?; read x";
    let mut session = of_shell(script);
    let pid = session.line("process ").parse().expect("a number");
    session.until("the terminal is raw", Session::is_raw);
    kill(pid, libc::SIGTSTP);
    session.line("stopped");
    assert!(
        !session.is_raw(),
        "the shell needs the terminal in its own modes"
    );
    session.master.write_all(b"\n").expect("typed");
    session.until("the terminal is raw", Session::is_raw);
    kill(pid, libc::SIGTERM);
    session.line("over 0");
    assert!(!session.is_raw());
    session.master.write_all(b"\n").expect("typed");
    assert!(session.end().success());
}

#[test]
fn a_guest_in_the_background_runs_on_without_keys_until_it_is_in_the_foreground() {
    let script = "\"$0\" \"$@\" & echo process $!; read x; fg; echo over $?; read x";
    let mut session = of_shell(script);
    let pid = session.line("process ").parse().expect("a number");
    // The guest enables input before it prints, so Baton has long found that the run is in the background.
    session.until("the guest prints", |session| {
        session.text().matches('.').count() > 60
    });
    assert!(!session.is_raw(), "the terminal belongs to the shell");
    session.master.write_all(b"\n").expect("typed");
    session.until("the terminal is raw", Session::is_raw);
    kill(pid, libc::SIGTERM);
    session.line("over 0");
    assert!(!session.is_raw());
    session.master.write_all(b"\n").expect("typed");
    assert!(session.end().success());
}
