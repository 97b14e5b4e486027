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
fn one_switch_signals_and_further_ones_do_not_until_the_event_is_armed_again() {
    let mut signal = HaltSignal::arm(signo()).unwrap();
    switch();
    for _ in 0..20 {
        // Whatever the host does to this thread, the event signals once per `rearm`.
        let before = SEEN.get();
        signal.rearm().unwrap();
        for _ in 0..3 {
            switch();
        }
        assert_eq!(SEEN.get(), before + 1);
    }
}

#[test]
fn an_event_that_is_armed_twice_signals_once() {
    let mut signal = HaltSignal::arm(signo()).unwrap();
    switch();
    for _ in 0..20 {
        signal.rearm().unwrap();
        signal.rearm().unwrap();
        let before = SEEN.get();
        switch();
        switch();
        assert!(SEEN.get() <= before + 1);
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
fn errors_name_the_remedy() {
    let error = HaltSignalError::NotPermitted { paranoid: Some(2) }.to_string();
    assert!(
        error.contains("CAP_PERFMON") && error.contains("(it is 2)"),
        "{error}"
    );
}
