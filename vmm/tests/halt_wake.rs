//! Halts and wakes are the policy's: a halt ends `KVM_RUN`, and a halted vCPU that is woken does
//! not handle its interrupt before somebody decides to run it.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "halt_wake/executor.rs"]
mod executor;
#[path = "halt_wake/guest.rs"]
mod guest;

use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use baton_host::halt::{
    Berth, BerthEnd, ExitOnWake, check_wake_events, check_wake_step, is_halted,
};
use baton_machine::{Exit, Vcpu, kvm};
use kvm_bindings::{KVM_MP_STATE_HALTED, KVM_MP_STATE_RUNNABLE, kvm_regs};

use executor::Executor;
use guest::{
    ICR_FIXED, ICR_INIT, ICR_STARTUP, INT, INVALID_OPCODE, TestGuest, after_hlt, handler,
    is_on_its_way, is_pending, stays,
};

/// Only ends a test that has failed.
const LOST: Duration = Duration::from_secs(60);
const RFLAGS_TF: u64 = 1 << 8;

struct TestBerth {
    berth: Berth,
    back: Receiver<(Box<Vcpu>, BerthEnd)>,
}

/// The ways in which this host makes wakes exits, each to be tested.
fn ways() -> Vec<ExitOnWake> {
    let kvm = kvm::open().unwrap_or_else(|error| panic!("this test needs KVM: {error}"));
    check_wake_step(&kvm).unwrap_or_else(|error| panic!("{error}"));
    let mut ways = vec![ExitOnWake::Step];
    match check_wake_events() {
        Ok(()) => ways.push(ExitOnWake::Events),
        Err(error) => eprintln!("not tested with tracepoints: {error}"),
    }
    ways
}

impl TestBerth {
    fn new(way: ExitOnWake) -> Self {
        let (out, back) = mpsc::channel();
        let on_wake = move |vcpu, end, _spent_ns| drop(out.send((vcpu, end)));
        let berth = Berth::new("berth".into(), way, Box::new(on_wake)).unwrap();
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

/// A halted vCPU before it goes to its berth.
struct Before {
    regs: kvm_regs,
    handled: u64,
    resumed: u64,
    escaped: u64,
}

impl Before {
    fn of(vcpu: &Vcpu, guest: &TestGuest) -> Self {
        Self {
            regs: vcpu.fd().get_regs().unwrap(),
            handled: guest.handled(),
            resumed: guest.resumed(),
            escaped: guest.escaped(),
        }
    }

    /// It woke, and its interrupt waits for the policy.
    fn assert_waits(&self, way: ExitOnWake, vcpu: &Vcpu, guest: &TestGuest) {
        match way {
            ExitOnWake::Events => self.assert_ran_nothing(vcpu, guest),
            ExitOnWake::Step => {
                assert_eq!(vcpu.mp_state().unwrap(), KVM_MP_STATE_RUNNABLE);
                assert_eq!(
                    guest.handled(),
                    self.handled,
                    "the handler ran before the policy ran the vCPU"
                );
                assert!(is_pending(vcpu), "the interrupt is lost");
                assert!(after_hlt().contains(&vcpu.fd().get_regs().unwrap().rip));
                assert!(guest.resumed() <= self.resumed + 1);
            }
        }
    }

    /// It has executed nothing. If its interrupt came in the moment when it fell asleep, that is on its
    /// way in KVM or has been delivered; on KVM-PVM the handler has executed one instruction then.
    fn assert_ran_nothing(&self, vcpu: &Vcpu, guest: &TestGuest) {
        assert_eq!(
            (guest.resumed(), guest.escaped()),
            (self.resumed, self.escaped),
            "it ran on before the policy ran it"
        );
        let regs = vcpu.fd().get_regs().unwrap();
        if regs == self.regs {
            assert!(
                is_pending(vcpu) || is_on_its_way(vcpu),
                "the interrupt is lost"
            );
            assert_eq!(guest.handled(), self.handled);
        } else {
            assert!(handler()[..=usize::from(is_pvm())].contains(&regs.rip));
            assert_eq!(
                guest.handled() - self.handled,
                u64::from(regs.rip != handler()[0])
            );
        }
    }
}

fn is_pvm() -> bool {
    Path::new("/sys/module/kvm_pvm").exists()
}

/// Numbers that look random, and are the same each time.
fn random() -> impl FnMut(u64) -> u64 {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    move |below| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    }
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
    for way in ways() {
        let (guest, mut sleeper, _) = TestGuest::create();
        let mut executor = Executor::new();
        let berth = TestBerth::new(way);
        let mut undelivered = 0;
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
            let before = Before::of(&sleeper, &guest);
            berth.put(sleeper);
            let (vcpu, end) = berth.back();
            sleeper = vcpu;
            assert_eq!(end, BerthEnd::Woken);
            before.assert_waits(way, &sleeper, &guest);
            undelivered += u32::from(is_pending(&sleeper));

            guest.set_timer(0);
            executor.run_until_halt(&mut sleeper);
            assert_eq!(
                (guest.handled(), guest.resumed()),
                (before.handled + 1, before.resumed + 1)
            );
        }
        assert!(undelivered > 0, "none of them found it asleep");
    }
}

#[test]
fn an_interrupt_from_a_sibling_ends_the_stay_in_the_berth_and_waits_for_the_policy() {
    for way in ways() {
        let (guest, mut sleeper, mut sender) = TestGuest::create();
        let mut executor = Executor::new();
        let berth = TestBerth::new(way);
        guest.start_sender(&sender, &sleeper);
        guest.set_command(ICR_FIXED, 0);
        executor.run_until_halt(&mut sleeper);
        for round in 0..40 {
            let before = Before::of(&sleeper, &guest);
            berth.put(sleeper);
            // Leaves by its port write, after the interrupt.
            while sender.exits.port_out <= round {
                assert!(matches!(sender.run(), Exit::Handled | Exit::Interrupted));
            }
            let (vcpu, end) = berth.back();
            sleeper = vcpu;
            assert_eq!(end, BerthEnd::Woken);
            before.assert_waits(way, &sleeper, &guest);
            executor.run_until_halt(&mut sleeper);
            assert_eq!((guest.handled(), guest.resumed()), (round + 1, round + 1));
        }
    }
}

#[test]
fn an_interrupt_for_a_halted_vcpu_in_no_berth_waits_for_the_policy_too() {
    for way in ways() {
        let (guest, mut sleeper, _) = TestGuest::create();
        let mut executor = Executor::new();
        executor.run_until_halt(&mut sleeper);
        guest.device_interrupt();
        assert!(is_pending(&sleeper) && is_halted(sleeper.mp_state().unwrap()));
        let before = Before::of(&sleeper, &guest);
        assert_eq!(before.handled, 0);

        let berth = TestBerth::new(way);
        berth.put(sleeper);
        let (mut sleeper, end) = berth.back();
        assert_eq!(end, BerthEnd::Woken);
        before.assert_waits(way, &sleeper, &guest);
        assert!(is_pending(&sleeper), "it was not even delivered");
        executor.run_until_halt(&mut sleeper);
        assert_eq!(guest.handled(), 1);
    }
}

/// KVM-PVM does not stop a guest after a single instruction that takes it to where it runs natively.
#[test]
fn a_vcpu_whose_first_instruction_leads_to_user_mode_comes_back_all_the_same() {
    for way in ways() {
        let (guest, mut sleeper, _) = TestGuest::create();
        guest.halt_before_user(&sleeper);
        Executor::new().run_until_halt(&mut sleeper);
        let before = Before::of(&sleeper, &guest);
        let berth = TestBerth::new(way);
        berth.put(sleeper);
        guest.device_interrupt();
        let (sleeper, end) = berth.back();
        assert_eq!(end, BerthEnd::Woken);
        if way == ExitOnWake::Events {
            before.assert_ran_nothing(&sleeper, &guest);
            assert!(!sleeper.overran_single_step);
            continue;
        }
        assert_eq!(sleeper.fd().get_sregs().unwrap().cs.dpl, 3);
        assert_eq!(guest.handled(), 0);
        assert!(is_pending(&sleeper));
        // From here on it is on the short leash.
        assert_eq!(sleeper.overran_single_step, is_pvm());
    }
}

/// Entering a handler clears the trap flag, of which a single step is made.
#[test]
fn a_vcpu_whose_first_instruction_enters_a_handler_comes_back_all_the_same() {
    for (way, vector) in ways()
        .into_iter()
        .flat_map(|way| [(way, INVALID_OPCODE), (way, INT)])
    {
        // Which does not emulate INT.
        if vector == INT && way == ExitOnWake::Step && is_pvm() {
            continue;
        }
        let (guest, mut sleeper, _) = TestGuest::create();
        guest.halt_before_handler(&sleeper, vector);
        Executor::new().run_until_halt(&mut sleeper);
        let before = Before::of(&sleeper, &guest);
        let berth = TestBerth::new(way);
        berth.put(sleeper);
        guest.device_interrupt();
        let (sleeper, end) = berth.back();
        assert_eq!(end, BerthEnd::Woken);
        if way == ExitOnWake::Events {
            before.assert_ran_nothing(&sleeper, &guest);
        } else {
            assert!(is_pending(&sleeper));
        }
        // With steps it got away, which the leash ended.
        eprintln!("{way:?} {vector:#x} rounds: {}", guest.escaped());
    }
}

/// KVM does not let a vCPU sleep that has an NMI, so it is stopped at its entry to the guest.
#[test]
fn tracepoints_stop_a_vcpu_that_has_woken_before_it_sleeps() {
    if !ways().contains(&ExitOnWake::Events) {
        return;
    }
    let berth = TestBerth::new(ExitOnWake::Events);
    for _ in 0..20 {
        let (guest, mut sleeper, _) = TestGuest::create();
        Executor::new().run_until_halt(&mut sleeper);
        guest.nmi();
        berth.put(sleeper);
        let (sleeper, end) = berth.back();
        assert_eq!(end, BerthEnd::Woken);
        assert_eq!(sleeper.mp_state().unwrap(), KVM_MP_STATE_RUNNABLE);
        let past = guest.escaped();
        assert!(
            past <= u64::from(is_pvm()),
            "its handler got {past} rounds far"
        );
        if past == 0 {
            let rip = sleeper.fd().get_regs().unwrap().rip;
            assert!(rip == stays() || rip == after_hlt()[0] && is_on_its_way(&sleeper));
        }
    }
}

#[test]
fn tracepoints_stop_a_vcpu_before_it_executes_anything_whenever_its_interrupt_comes() {
    if !ways().contains(&ExitOnWake::Events) {
        return;
    }
    let (guest, mut sleeper, _) = TestGuest::create();
    let mut executor = Executor::new();
    let berth = TestBerth::new(ExitOnWake::Events);
    let mut next = random();
    executor.run_until_halt(&mut sleeper);
    for _ in 0..1000 {
        let before = Before::of(&sleeper, &guest);
        let spin = next(30_000);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..spin {
                    std::hint::spin_loop();
                }
                guest.device_interrupt();
            });
            berth.put(sleeper);
        });
        let (vcpu, end) = berth.back();
        sleeper = vcpu;
        assert_eq!(end, BerthEnd::Woken);
        before.assert_ran_nothing(&sleeper, &guest);
        executor.run_until_halt(&mut sleeper);
        assert_eq!(guest.handled(), before.handled + 1);
    }
}

#[test]
fn a_runnable_vcpu_comes_back_from_the_berth_without_having_run() {
    for way in ways() {
        let (guest, sleeper, _) = TestGuest::create();
        let berth = TestBerth::new(way);
        let before = sleeper.fd().get_regs().unwrap();
        berth.put(sleeper);
        let (sleeper, end) = berth.back();
        assert_eq!(end, BerthEnd::Woken);
        assert_eq!(sleeper.fd().get_regs().unwrap(), before);
        assert_eq!(guest.handled(), 0);
    }
}

#[test]
fn a_recalled_vcpu_comes_back_once_whatever_else_happens_to_it() {
    for way in ways() {
        let (guest, mut sleeper, _) = TestGuest::create();
        let mut executor = Executor::new();
        let berth = TestBerth::new(way);
        let mut next = random();
        executor.run_until_halt(&mut sleeper);
        let mut recalled = 0;
        for _ in 0..300 {
            let before = Before::of(&sleeper, &guest);
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
            match end {
                BerthEnd::Recalled => {
                    assert_eq!(sleeper.fd().get_regs().unwrap(), before.regs);
                    recalled += 1;
                }
                BerthEnd::Woken => before.assert_waits(way, &sleeper, &guest),
                BerthEnd::Exited(exit) => panic!("{exit:?}"),
            }
            executor.run_until_halt(&mut sleeper);
            assert_eq!(guest.handled(), before.handled + u64::from(interrupt == 0));
        }
        assert!(recalled >= 100, "most rounds send no interrupt: {recalled}");
        assert!(berth.back.try_recv().is_err(), "nothing comes back twice");
    }
}

#[test]
fn a_berth_that_goes_gives_its_vcpu_back() {
    for way in ways() {
        let (_guest, mut sleeper, _) = TestGuest::create();
        Executor::new().run_until_halt(&mut sleeper);
        let TestBerth { berth, back } = TestBerth::new(way);
        berth.put(sleeper).expect("the berth is empty");
        drop(berth);
        let (sleeper, end) = back.try_recv().expect("it is back when the berth is gone");
        assert_eq!(end, BerthEnd::Recalled);
        assert!(is_halted(sleeper.mp_state().unwrap()));
    }
}

#[test]
fn a_vcpu_that_waits_to_be_started_sleeps_in_a_berth_until_its_sibling_starts_it() {
    for way in ways() {
        let (guest, mut sleeper, waiting) = TestGuest::create();
        // Roles change: vCPU 0 sends.
        guest.start_sender(&sleeper, &sleeper);
        let berth = TestBerth::new(way);
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
}

#[test]
fn a_guest_that_has_ended_leaves_the_berth() {
    for way in ways() {
        let (guest, mut sleeper, _) = TestGuest::create();
        Executor::new().run_until_halt(&mut sleeper);
        let berth = TestBerth::new(way);
        guest.0.end(baton_machine::GuestEnd::Killed);
        berth.put(sleeper);
        assert_eq!(berth.back().1, BerthEnd::Exited(Exit::Ended));
    }
}
