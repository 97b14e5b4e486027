//! Halts and wakes are the policy's: a halt ends `KVM_RUN`, and a halted vCPU that is woken does
//! not handle its interrupt before somebody decides to run it.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "halt_wake/executor.rs"]
mod executor;
#[path = "halt_wake/guest.rs"]
mod guest;

use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use baton::halt::{Berth, BerthEnd, check_wake_step, is_halted};
use baton::machine::{Exit, Vcpu, kvm};
use executor::Executor;
use guest::{ICR_FIXED, ICR_INIT, ICR_STARTUP, TestGuest, after_hlt, is_pending};
use kvm_bindings::{KVM_MP_STATE_HALTED, KVM_MP_STATE_RUNNABLE};

/// Only ends a test that has failed.
const LOST: Duration = Duration::from_secs(60);
const RFLAGS_TF: u64 = 1 << 8;

struct TestBerth {
    berth: Berth,
    back: Receiver<(Box<Vcpu>, BerthEnd)>,
}

impl TestBerth {
    fn new() -> Self {
        let kvm = kvm::open().unwrap_or_else(|error| panic!("this test needs KVM: {error}"));
        check_wake_step(&kvm).unwrap_or_else(|error| panic!("{error}"));
        let (out, back) = mpsc::channel();
        let on_wake = move |vcpu, end, _spent_ns| drop(out.send((vcpu, end)));
        let berth = Berth::new("berth".into(), Box::new(on_wake)).unwrap();
        Self { berth, back }
    }

    fn put(&self, vcpu: Box<Vcpu>) {
        self.berth.put(vcpu).expect("the berth is empty");
    }

    /// The vCPU when it comes back: as every vCPU has to leave its berth.
    fn back(&self) -> (Box<Vcpu>, BerthEnd) {
        let (vcpu, end) = self.back.recv_timeout(LOST).expect("the vCPU comes back");
        assert!(!vcpu.immediate_exit().is_set());
        assert_eq!(vcpu.fd().get_regs().unwrap().rflags & RFLAGS_TF, 0);
        (vcpu, end)
    }
}

/// It woke, went on by one instruction at most, and its interrupt waits.
fn assert_woken_and_waiting(vcpu: &Vcpu, guest: &TestGuest, handled: u64, resumed: u64) {
    assert_eq!(vcpu.mp_state().unwrap(), KVM_MP_STATE_RUNNABLE);
    assert_eq!(
        guest.handled(),
        handled,
        "the handler ran before the policy ran the vCPU"
    );
    assert!(is_pending(vcpu), "the interrupt is lost");
    assert!(after_hlt().contains(&vcpu.fd().get_regs().unwrap().rip));
    assert!(guest.resumed() <= resumed + 1);
}

#[test]
fn a_halt_ends_the_run_of_the_executor() {
    let (_guest, mut sleeper, _) = TestGuest::create();
    let mut executor = Executor::new();
    for _ in 0..100 {
        executor.run_until_halt(&mut sleeper);
        assert_eq!(sleeper.mp_state().unwrap(), KVM_MP_STATE_HALTED);
        assert_eq!(sleeper.fd().get_regs().unwrap().rip, after_hlt()[0]);
    }
}

#[test]
fn a_timer_interrupt_ends_the_stay_in_the_berth_and_waits_for_the_policy() {
    let (guest, mut sleeper, _) = TestGuest::create();
    let mut executor = Executor::new();
    let berth = TestBerth::new();
    for (round, ns) in [500_000, 1_000_000, 2_000_000, 5_000_000]
        .into_iter()
        .enumerate()
    {
        guest.set_timer(ns);
        if round > 0 {
            // Out of the sleep of the last round, to arm the timer.
            guest.device_interrupt();
        }
        executor.run_until_halt(&mut sleeper);
        let (handled, resumed) = (guest.handled(), guest.resumed());
        berth.put(sleeper);
        let (vcpu, end) = berth.back();
        sleeper = vcpu;
        assert_eq!(end, BerthEnd::Woken);
        assert_woken_and_waiting(&sleeper, &guest, handled, resumed);

        guest.set_timer(0);
        executor.run_until_halt(&mut sleeper);
        assert_eq!(
            (guest.handled(), guest.resumed()),
            (handled + 1, resumed + 1)
        );
    }
}

#[test]
fn an_interrupt_from_a_sibling_ends_the_stay_in_the_berth_and_waits_for_the_policy() {
    let (guest, mut sleeper, mut sender) = TestGuest::create();
    let mut executor = Executor::new();
    let berth = TestBerth::new();
    guest.start_sender(&sender, &sleeper);
    guest.set_command(ICR_FIXED, 0);
    executor.run_until_halt(&mut sleeper);
    for round in 0..40 {
        berth.put(sleeper);
        // Leaves by its port write, after the interrupt.
        while sender.exits.port_out <= round {
            assert!(matches!(sender.run(), Exit::Handled | Exit::Interrupted));
        }
        let (vcpu, end) = berth.back();
        sleeper = vcpu;
        assert_eq!(end, BerthEnd::Woken);
        assert_woken_and_waiting(&sleeper, &guest, round, round);
        executor.run_until_halt(&mut sleeper);
        assert_eq!((guest.handled(), guest.resumed()), (round + 1, round + 1));
    }
}

#[test]
fn an_interrupt_for_a_halted_vcpu_in_no_berth_waits_for_the_policy_too() {
    let (guest, mut sleeper, _) = TestGuest::create();
    let mut executor = Executor::new();
    executor.run_until_halt(&mut sleeper);
    guest.device_interrupt();
    assert!(is_pending(&sleeper) && is_halted(sleeper.mp_state().unwrap()));
    assert_eq!(guest.handled(), 0);

    let berth = TestBerth::new();
    berth.put(sleeper);
    let (mut sleeper, end) = berth.back();
    assert_eq!(end, BerthEnd::Woken);
    assert_woken_and_waiting(&sleeper, &guest, 0, 0);
    executor.run_until_halt(&mut sleeper);
    assert_eq!(guest.handled(), 1);
}

/// KVM-PVM does not stop a guest after a single instruction that takes it to where it runs natively.
#[test]
fn a_vcpu_whose_first_instruction_leads_to_user_mode_comes_back_all_the_same() {
    let (guest, mut sleeper, _) = TestGuest::create();
    guest.halt_before_user(&sleeper);
    Executor::new().run_until_halt(&mut sleeper);
    let berth = TestBerth::new();
    berth.put(sleeper);
    guest.device_interrupt();
    let (sleeper, end) = berth.back();
    assert_eq!(end, BerthEnd::Woken);
    assert_eq!(sleeper.fd().get_sregs().unwrap().cs.dpl, 3);
    assert_eq!(guest.handled(), 0);
    assert!(is_pending(&sleeper));
    // From here on it is on the short leash.
    let pvm = std::path::Path::new("/sys/module/kvm_pvm").exists();
    assert_eq!(sleeper.slips, pvm);
}

#[test]
fn a_runnable_vcpu_comes_back_from_the_berth_without_having_run() {
    let (guest, sleeper, _) = TestGuest::create();
    let berth = TestBerth::new();
    let before = sleeper.fd().get_regs().unwrap();
    berth.put(sleeper);
    let (sleeper, end) = berth.back();
    assert_eq!(end, BerthEnd::Woken);
    assert_eq!(sleeper.fd().get_regs().unwrap(), before);
    assert_eq!(guest.handled(), 0);
}

#[test]
fn a_recalled_vcpu_comes_back_once_whatever_else_happens_to_it() {
    let (guest, mut sleeper, _) = TestGuest::create();
    let mut executor = Executor::new();
    let berth = TestBerth::new();
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    executor.run_until_halt(&mut sleeper);
    let mut recalled = 0;
    for _ in 0..300 {
        let handled = guest.handled();
        let (spin, interrupt, first) = (next(60_000), next(3), next(4) == 0);
        let disturb = || {
            for _ in 0..spin {
                std::hint::spin_loop();
            }
            if interrupt == 0 {
                guest.device_interrupt();
            }
            berth.berth.recall();
        };
        thread::scope(|scope| {
            if first {
                disturb();
                berth.put(sleeper);
            } else {
                scope.spawn(disturb);
                berth.put(sleeper);
            }
        });
        let (vcpu, end) = berth.back();
        sleeper = vcpu;
        assert_eq!(guest.handled(), handled);
        match end {
            BerthEnd::Recalled => recalled += 1,
            BerthEnd::Woken => assert_eq!(sleeper.mp_state().unwrap(), KVM_MP_STATE_RUNNABLE),
            BerthEnd::Exited(exit) => panic!("{exit:?}"),
        }
        executor.run_until_halt(&mut sleeper);
        assert_eq!(guest.handled(), handled + u64::from(interrupt == 0));
    }
    assert!(recalled >= 100, "most rounds send no interrupt: {recalled}");
    assert!(berth.back.try_recv().is_err(), "nothing comes back twice");
}

#[test]
fn a_berth_that_goes_gives_its_vcpu_back() {
    let (_guest, mut sleeper, _) = TestGuest::create();
    Executor::new().run_until_halt(&mut sleeper);
    let TestBerth { berth, back } = TestBerth::new();
    berth.put(sleeper).expect("the berth is empty");
    drop(berth);
    let (sleeper, end) = back.try_recv().expect("it is back when the berth is gone");
    assert_eq!(end, BerthEnd::Recalled);
    assert!(is_halted(sleeper.mp_state().unwrap()));
}

#[test]
fn a_vcpu_that_waits_to_be_started_sleeps_in_a_berth_until_its_sibling_starts_it() {
    let (guest, mut sleeper, waiting) = TestGuest::create();
    // Roles change: vCPU 0 sends.
    guest.start_sender(&sleeper, &sleeper);
    let berth = TestBerth::new();
    berth.put(waiting);
    for (command, sent) in [(ICR_INIT, 1), (ICR_STARTUP, 2)] {
        guest.set_command(command, 1);
        while sleeper.exits.port_out < sent {
            assert!(matches!(sleeper.run(), Exit::Handled | Exit::Interrupted));
        }
    }
    let (started, end) = berth.back();
    assert_eq!(end, BerthEnd::Woken);
    assert_eq!(started.mp_state().unwrap(), KVM_MP_STATE_RUNNABLE);
    assert!(started.fd().get_sregs().unwrap().cs.base == 0x8000);
}

#[test]
fn a_guest_that_has_ended_leaves_the_berth() {
    let (guest, mut sleeper, _) = TestGuest::create();
    Executor::new().run_until_halt(&mut sleeper);
    let berth = TestBerth::new();
    guest.0.end(baton::machine::GuestEnd::Killed);
    berth.put(sleeper);
    assert_eq!(berth.back().1, BerthEnd::Exited(Exit::Ended));
}
