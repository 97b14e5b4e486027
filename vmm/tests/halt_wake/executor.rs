//! An executor reduced to its use of a [`HaltSignal`].

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicU8, Ordering};

use baton_host::halt::{HaltSignal, is_halted};
use baton_machine::{Exit, Vcpu};
use baton_os::signals::RtSignal;
use kvm_bindings::KVM_MP_STATE_RUNNABLE;
use vmm_sys_util::signal::register_signal_handler;

use crate::guest::is_pending;

thread_local! {
    static CURRENT: Cell<*const AtomicU8> = const { Cell::new(ptr::null()) };
}

extern "C" fn on_signal(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let current = CURRENT.get();
    if !current.is_null() {
        // SAFETY: `run_until_halt` keeps the handle of this flag.
        unsafe { &*current }.store(1, Ordering::Relaxed);
    }
}

/// Runs vCPUs on the calling thread.
pub struct Executor {
    signal: HaltSignal,
}

impl Executor {
    pub fn new() -> Self {
        let signo = RtSignal::ExecutorKick.number();
        register_signal_handler(signo, on_signal).unwrap();
        let signal = HaltSignal::arm(signo).unwrap_or_else(|error| panic!("{error}"));
        Self { signal }
    }

    /// Runs `vcpu` until it halts.
    pub fn run_until_halt(&mut self, vcpu: &mut Vcpu) {
        let immediate_exit = vcpu.immediate_exit();
        CURRENT.set(immediate_exit.as_ptr());
        if is_halted(vcpu.mp_state().unwrap()) && is_pending(vcpu) {
            // The vCPU has been woken. On a busy host a signal can end KVM_RUN before KVM changes the state,
            // which must not look as if the vCPU had run and halted again.
            vcpu.set_mp_state(KVM_MP_STATE_RUNNABLE).unwrap();
        }
        loop {
            immediate_exit.set(false);
            self.signal.rearm().unwrap();
            match vcpu.run() {
                Exit::Handled => {}
                Exit::Interrupted if is_halted(vcpu.mp_state().unwrap()) => break,
                Exit::Interrupted => {}
                exit => panic!("{exit:?}, {:?}", vcpu.guest.ended()),
            }
        }
        CURRENT.set(ptr::null());
        immediate_exit.set(false);
    }
}
