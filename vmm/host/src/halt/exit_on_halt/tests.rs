#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::thread;
use std::time::Duration;

use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use super::*;

thread_local! {
    static SEEN: Cell<u64> = const { Cell::new(0) };
}

extern "C" fn on_signal(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    SEEN.set(SEEN.get() + 1);
}

/// A signal number of these tests alone: threads run side by side.
fn signo() -> libc::c_int {
    let signo = SIGRTMIN() + 5;
    register_signal_handler(signo, on_signal).unwrap();
    signo
}

/// Goes off the CPU at least once.
fn switch() {
    thread::sleep(Duration::from_micros(200));
}

#[test]
fn one_switch_signals_and_the_next_ones_do_not_until_made_ready() {
    let mut signal = HaltSignal::arm(signo()).unwrap();
    switch();
    for _ in 0..20 {
        // The shot is spent, so whatever the host does to this thread, it signals once per `ready`.
        let before = SEEN.get();
        signal.ready().unwrap();
        for _ in 0..3 {
            switch();
        }
        assert_eq!(SEEN.get(), before + 1);
    }
    signal.ready().unwrap();
    assert_eq!(signal.signals(), 21);
}

#[test]
fn a_quiet_event_does_not_signal_and_keeps_its_shot() {
    let mut signal = HaltSignal::arm(signo()).unwrap();
    switch();
    for _ in 0..20 {
        signal.ready().unwrap();
        signal.quiet().unwrap();
        let before = SEEN.get();
        switch();
        switch();
        assert_eq!(SEEN.get(), before);
        signal.ready().unwrap();
        switch();
        switch();
        assert_eq!(SEEN.get(), before + 1, "one shot, not two");
    }
}

#[test]
fn a_signal_without_a_handler_is_refused() {
    assert!(matches!(
        HaltSignal::arm(SIGRTMIN() + 6),
        Err(HaltSignalError::Signal(_))
    ));
    assert!(matches!(
        HaltSignal::arm(libc::SIGUSR1),
        Err(HaltSignalError::Signal(_))
    ));
    assert!(matches!(
        HaltSignal::arm(-1),
        Err(HaltSignalError::Signal(-1))
    ));
}

#[test]
fn errors_say_what_to_do() {
    let error = HaltSignalError::NotPermitted { paranoid: Some(2) }.to_string();
    assert!(
        error.contains("CAP_PERFMON") && error.contains("(it is 2)"),
        "{error}"
    );
}

#[test]
fn sleeping_is_no_preemption() {
    // At least one of these many sleeps is not accompanied by a preemption.
    assert!((0..100).any(|_| {
        let before = host_preemptions();
        switch();
        host_preemptions() == before
    }));
}
