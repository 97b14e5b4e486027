//! The policy decides after halts and wakes: a halt ends `KVM_RUN`, and a halted vCPU that wakes does
//! not handle its interrupt before an executor runs it.

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
    ExitOnWake, HaltThread, SleepEnd, ThreadPriority, check_wake_events, check_wake_step, is_halted,
};
use baton_machine::{Exit, Vcpu, kvm};
use kvm_bindings::{KVM_MP_STATE_HALTED, KVM_MP_STATE_RUNNABLE, kvm_regs};

use executor::Executor;
use guest::{
    ICR_FIXED, ICR_INIT, ICR_STARTUP, INT, INVALID_OPCODE, TestGuest, after_hlt, handler,
    is_on_its_way, is_pending, stays,
};

/// Ends a test only if that has failed.
const LOST: Duration = Duration::from_secs(60);
const RFLAGS_TF: u64 = 1 << 8;

struct TestThread {
    thread: HaltThread,
    given_back: Receiver<(Box<Vcpu>, SleepEnd)>,
}

/// The ways in which this host can make wakes exits; each is tested.
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

impl TestThread {
    fn new(way: ExitOnWake) -> Self {
        let (sender, given_back) = mpsc::channel();
        let on_wake = move |vcpu, end, _cpu_ns| drop(sender.send((vcpu, end)));
        let thread = HaltThread::new(
            "halt".into(),
            way,
            ThreadPriority::default(),
            Box::new(on_wake),
        )
        .unwrap();
        Self { thread, given_back }
    }

    fn put(&self, vcpu: Box<Vcpu>) {
        self.thread.put(vcpu).expect("the thread has no other vCPU");
    }

    /// Waits for the vCPU, and checks what holds for every vCPU that a halt thread gives back.
    fn wait(&self) -> (Box<Vcpu>, SleepEnd) {
        let (vcpu, end) = self
            .given_back
            .recv_timeout(LOST)
            .expect("the vCPU is given back");
        assert!(!vcpu.immediate_exit().is_set());
        assert_eq!(vcpu.fd().get_regs().unwrap().rflags & RFLAGS_TF, 0);
        (vcpu, end)
    }
}

/// A halted vCPU before it is put on its halt thread.
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

    /// Checks that the vCPU woke, and that its interrupt is pending until the policy picks the vCPU.
    fn assert_waits(&self, way: ExitOnWake, vcpu: &Vcpu, guest: &TestGuest) {
        match way {
            ExitOnWake::Events => self.assert_ran_nothing(vcpu, guest),
            ExitOnWake::Step => {
                assert_eq!(vcpu.mp_state().unwrap(), KVM_MP_STATE_RUNNABLE);
                assert_eq!(
                    guest.handled(),
                    self.handled,
                    "the handler ran before the vCPU was picked"
                );
                assert!(is_pending(vcpu), "the interrupt is lost");
                assert!(after_hlt().contains(&vcpu.fd().get_regs().unwrap().rip));
                assert!(guest.resumed() <= self.resumed + 1);
            }
        }
    }

    /// Checks that the vCPU has executed nothing. If its interrupt came at the moment when it fell asleep,
    /// KVM has taken the interrupt or has delivered it; on KVM-PVM the handler has executed one instruction
    /// then.
    fn assert_ran_nothing(&self, vcpu: &Vcpu, guest: &TestGuest) {
        assert_eq!(
            (guest.resumed(), guest.escaped()),
            (self.resumed, self.escaped),
            "it ran on before it was picked"
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
    let (_guest, mut halted, _) = TestGuest::create();
    let mut executor = Executor::new();
    for _ in 0..100 {
        executor.run_until_halt(&mut halted);
        assert_eq!(halted.mp_state().unwrap(), KVM_MP_STATE_HALTED);
        assert_eq!(halted.fd().get_regs().unwrap().rip, after_hlt()[0]);
    }
}

#[test]
fn a_timer_interrupt_ends_the_sleep_and_stays_pending_until_the_vcpu_runs() {
    for way in ways() {
        let (guest, mut halted, _) = TestGuest::create();
        let mut executor = Executor::new();
        let halt_thread = TestThread::new(way);
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
            executor.run_until_halt(&mut halted);
            let before = Before::of(&halted, &guest);
            halt_thread.put(halted);
            let (vcpu, end) = halt_thread.wait();
            halted = vcpu;
            assert_eq!(end, SleepEnd::Woken);
            before.assert_waits(way, &halted, &guest);
            undelivered += u32::from(is_pending(&halted));

            guest.set_timer(0);
            executor.run_until_halt(&mut halted);
            assert_eq!(
                (guest.handled(), guest.resumed()),
                (before.handled + 1, before.resumed + 1)
            );
        }
        assert!(undelivered > 0, "none of them found it asleep");
    }
}

#[test]
fn an_interrupt_from_a_sibling_ends_the_sleep_and_stays_pending_until_the_vcpu_runs() {
    for way in ways() {
        let (guest, mut halted, mut sender) = TestGuest::create();
        let mut executor = Executor::new();
        let halt_thread = TestThread::new(way);
        guest.start_sender(&sender, &halted);
        guest.set_command(ICR_FIXED, 0);
        executor.run_until_halt(&mut halted);
        for round in 0..40 {
            let before = Before::of(&halted, &guest);
            halt_thread.put(halted);
            // The sender leaves by its port write, after the interrupt.
            while sender.exits.port_out <= round {
                assert!(matches!(sender.run(), Exit::Handled | Exit::Interrupted));
            }
            let (vcpu, end) = halt_thread.wait();
            halted = vcpu;
            assert_eq!(end, SleepEnd::Woken);
            before.assert_waits(way, &halted, &guest);
            executor.run_until_halt(&mut halted);
            assert_eq!((guest.handled(), guest.resumed()), (round + 1, round + 1));
        }
    }
}

#[test]
fn an_interrupt_before_the_sleep_stays_pending_until_the_vcpu_runs_too() {
    for way in ways() {
        let (guest, mut halted, _) = TestGuest::create();
        let mut executor = Executor::new();
        executor.run_until_halt(&mut halted);
        guest.device_interrupt();
        assert!(is_pending(&halted) && is_halted(halted.mp_state().unwrap()));
        let before = Before::of(&halted, &guest);
        assert_eq!(before.handled, 0);

        let halt_thread = TestThread::new(way);
        halt_thread.put(halted);
        let (mut halted, end) = halt_thread.wait();
        assert_eq!(end, SleepEnd::Woken);
        before.assert_waits(way, &halted, &guest);
        assert!(is_pending(&halted), "it was not even delivered");
        executor.run_until_halt(&mut halted);
        assert_eq!(guest.handled(), 1);
    }
}

/// KVM-PVM does not stop a guest after a single instruction that takes it to where it runs natively.
#[test]
fn a_vcpu_whose_first_instruction_leads_to_user_mode_is_given_back_all_the_same() {
    for way in ways() {
        let (guest, mut halted, _) = TestGuest::create();
        guest.halt_before_user(&halted);
        Executor::new().run_until_halt(&mut halted);
        let before = Before::of(&halted, &guest);
        let halt_thread = TestThread::new(way);
        halt_thread.put(halted);
        guest.device_interrupt();
        let (halted, end) = halt_thread.wait();
        assert_eq!(end, SleepEnd::Woken);
        if way == ExitOnWake::Events {
            before.assert_ran_nothing(&halted, &guest);
            assert!(!halted.overran_single_step);
            continue;
        }
        assert_eq!(halted.fd().get_sregs().unwrap().cs.dpl, 3);
        assert_eq!(guest.handled(), 0);
        assert!(is_pending(&halted));
        // From here on its runaway guard has short slices.
        assert_eq!(halted.overran_single_step, is_pvm());
    }
}

/// Entering a handler clears the trap flag, of which a single step is made.
#[test]
fn a_vcpu_whose_first_instruction_enters_a_handler_is_given_back_all_the_same() {
    for (way, vector) in ways()
        .into_iter()
        .flat_map(|way| [(way, INVALID_OPCODE), (way, INT)])
    {
        // KVM-PVM does not emulate INT.
        if vector == INT && way == ExitOnWake::Step && is_pvm() {
            continue;
        }
        let (guest, mut halted, _) = TestGuest::create();
        guest.halt_before_handler(&halted, vector);
        Executor::new().run_until_halt(&mut halted);
        let before = Before::of(&halted, &guest);
        let halt_thread = TestThread::new(way);
        halt_thread.put(halted);
        guest.device_interrupt();
        let (halted, end) = halt_thread.wait();
        assert_eq!(end, SleepEnd::Woken);
        if way == ExitOnWake::Events {
            before.assert_ran_nothing(&halted, &guest);
        } else {
            assert!(is_pending(&halted));
        }
        // With steps the vCPU ran on until the runaway guard ended that.
        eprintln!("{way:?} {vector:#x} rounds: {}", guest.escaped());
    }
}

/// KVM does not let a vCPU sleep that has an NMI, so it is stopped at its entry to the guest.
#[test]
fn tracepoints_stop_a_vcpu_that_has_woken_before_it_sleeps() {
    if !ways().contains(&ExitOnWake::Events) {
        return;
    }
    let halt_thread = TestThread::new(ExitOnWake::Events);
    for _ in 0..20 {
        let (guest, mut halted, _) = TestGuest::create();
        Executor::new().run_until_halt(&mut halted);
        guest.nmi();
        halt_thread.put(halted);
        let (halted, end) = halt_thread.wait();
        assert_eq!(end, SleepEnd::Woken);
        assert_eq!(halted.mp_state().unwrap(), KVM_MP_STATE_RUNNABLE);
        let past = guest.escaped();
        assert!(
            past <= u64::from(is_pvm()),
            "its handler got {past} rounds far"
        );
        if past == 0 {
            let rip = halted.fd().get_regs().unwrap().rip;
            assert!(rip == stays() || rip == after_hlt()[0] && is_on_its_way(&halted));
        }
    }
}

#[test]
fn tracepoints_stop_a_vcpu_before_it_executes_anything_whenever_its_interrupt_comes() {
    if !ways().contains(&ExitOnWake::Events) {
        return;
    }
    let (guest, mut halted, _) = TestGuest::create();
    let mut executor = Executor::new();
    let halt_thread = TestThread::new(ExitOnWake::Events);
    let mut next = random();
    executor.run_until_halt(&mut halted);
    for _ in 0..1000 {
        let before = Before::of(&halted, &guest);
        let spin = next(30_000);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..spin {
                    std::hint::spin_loop();
                }
                guest.device_interrupt();
            });
            halt_thread.put(halted);
        });
        let (vcpu, end) = halt_thread.wait();
        halted = vcpu;
        assert_eq!(end, SleepEnd::Woken);
        before.assert_ran_nothing(&halted, &guest);
        executor.run_until_halt(&mut halted);
        assert_eq!(guest.handled(), before.handled + 1);
    }
}

#[test]
fn a_runnable_vcpu_is_given_back_without_having_run() {
    for way in ways() {
        let (guest, halted, _) = TestGuest::create();
        let halt_thread = TestThread::new(way);
        let before = halted.fd().get_regs().unwrap();
        halt_thread.put(halted);
        let (halted, end) = halt_thread.wait();
        assert_eq!(end, SleepEnd::Woken);
        assert_eq!(halted.fd().get_regs().unwrap(), before);
        assert_eq!(guest.handled(), 0);
    }
}

#[test]
fn a_vcpu_whose_sleep_is_interrupted_is_given_back_once_whatever_else_happens() {
    for way in ways() {
        let (guest, mut halted, _) = TestGuest::create();
        let mut executor = Executor::new();
        let halt_thread = TestThread::new(way);
        let mut next = random();
        executor.run_until_halt(&mut halted);
        let mut interrupted = 0;
        for _ in 0..300 {
            let before = Before::of(&halted, &guest);
            let (spin, interrupt, first) = (next(60_000), next(3), next(4) == 0);
            let disturb = || {
                for _ in 0..spin {
                    std::hint::spin_loop();
                }
                if interrupt == 0 {
                    guest.device_interrupt();
                }
                halt_thread.thread.interrupt_sleep();
            };
            thread::scope(|scope| {
                if first {
                    disturb();
                    halt_thread.put(halted);
                } else {
                    scope.spawn(disturb);
                    halt_thread.put(halted);
                }
            });
            let (vcpu, end) = halt_thread.wait();
            halted = vcpu;
            match end {
                SleepEnd::Interrupted => {
                    assert_eq!(halted.fd().get_regs().unwrap(), before.regs);
                    interrupted += 1;
                }
                SleepEnd::Woken => before.assert_waits(way, &halted, &guest),
                SleepEnd::Exited(exit) => panic!("{exit:?}"),
            }
            executor.run_until_halt(&mut halted);
            assert_eq!(guest.handled(), before.handled + u64::from(interrupt == 0));
        }
        assert!(
            interrupted >= 100,
            "most rounds send no interrupt: {interrupted}"
        );
        assert!(
            halt_thread.given_back.try_recv().is_err(),
            "it is given back once"
        );
    }
}

#[test]
fn a_halt_thread_that_is_dropped_gives_its_vcpu_back() {
    for way in ways() {
        let (_guest, mut halted, _) = TestGuest::create();
        Executor::new().run_until_halt(&mut halted);
        let TestThread { thread, given_back } = TestThread::new(way);
        thread.put(halted).expect("the thread has no other vCPU");
        drop(thread);
        let (halted, end) = given_back
            .try_recv()
            .expect("it is given back before the drop returns");
        assert_eq!(end, SleepEnd::Interrupted);
        assert!(is_halted(halted.mp_state().unwrap()));
    }
}

#[test]
fn a_vcpu_that_waits_to_be_started_sleeps_until_its_sibling_starts_it() {
    for way in ways() {
        let (guest, mut halted, waiting) = TestGuest::create();
        // Here vCPU 0 is the sender.
        guest.start_sender(&halted, &halted);
        let halt_thread = TestThread::new(way);
        halt_thread.put(waiting);
        for (command, sent) in [(ICR_INIT, 1), (ICR_STARTUP, 2)] {
            guest.set_command(command, 1);
            while halted.exits.port_out < sent {
                assert!(matches!(halted.run(), Exit::Handled | Exit::Interrupted));
            }
        }
        let (started, end) = halt_thread.wait();
        assert_eq!(end, SleepEnd::Woken);
        assert_eq!(started.mp_state().unwrap(), KVM_MP_STATE_RUNNABLE);
        assert!(started.fd().get_sregs().unwrap().cs.base == 0x8000);
    }
}

#[test]
fn the_vcpu_of_a_guest_that_has_ended_is_given_back() {
    for way in ways() {
        let (guest, mut halted, _) = TestGuest::create();
        Executor::new().run_until_halt(&mut halted);
        let halt_thread = TestThread::new(way);
        guest.0.end(baton_machine::GuestEnd::Killed);
        halt_thread.put(halted);
        assert_eq!(halt_thread.wait().1, SleepEnd::Exited(Exit::Ended));
    }
}
