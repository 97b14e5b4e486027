//! `KVM_RUN` is modelled as a wait that ends at once if `immediate_exit` is set, and otherwise by a signal
//! to a thread that is inside. A thread that is not stopped waits for ever, which loom reports as a
//! deadlock.

use super::*;
use crate::sync::{Arc, Condvar, thread};

/// The kernel id of the vCPU's thread.
const TID: i32 = 7;

/// `kvm_run.immediate_exit`. The kernel and this program access it without any order.
#[derive(Clone)]
struct ExitFlag(Arc<AtomicBool>);

impl ImmediateExitFlag for ExitFlag {
    fn set(&self, on: bool) {
        self.0.store(on, Ordering::Relaxed);
    }
}

/// The kernel's part.
struct Kernel {
    inside: Mutex<Inside>,
    signalled: Condvar,
}

#[derive(Default)]
struct Inside {
    runs: bool,
    signalled: bool,
}

impl Kernel {
    fn new() -> Self {
        Self {
            inside: Mutex::new(Inside::default()),
            signalled: Condvar::new(),
        }
    }

    /// Returns when a signal or the flag has ended the run.
    fn kvm_run(&self, flag: &ExitFlag) {
        let mut inside = self.inside.lock();
        if flag.0.load(Ordering::Relaxed) {
            return;
        }
        inside.runs = true;
        let mut inside = self
            .signalled
            .wait_while(inside, |inside| !inside.signalled);
        *inside = Inside::default();
    }

    /// A signal with an empty handler. Outside of `KVM_RUN` it changes nothing.
    fn signal(&self) {
        let mut inside = self.inside.lock();
        if inside.runs {
            inside.signalled = true;
            self.signalled.notify_one();
        }
    }
}

/// What the threads of a model share.
struct StopModel {
    stop: StopRequest<ExitFlag>,
    flag: ExitFlag,
    kernel: Kernel,
}

impl StopModel {
    fn new() -> Arc<Self> {
        let flag = ExitFlag(Arc::new(AtomicBool::new(false)));
        Arc::new(Self {
            stop: StopRequest::new(flag.clone()),
            flag,
            kernel: Kernel::new(),
        })
    }

    /// The vCPU's thread.
    fn run(&self) {
        self.stop.begin(TID);
        while !self.stop.is_requested() {
            self.kernel.kvm_run(&self.flag);
            self.stop.clear_immediate_exit(&self.flag);
        }
        self.stop.end();
    }

    /// A thread that stops the vCPU.
    fn request(&self) {
        self.stop.request(|tid| {
            assert_eq!(tid, TID);
            self.kernel.signal();
        });
    }
}

#[test]
fn loom_a_stop_reaches_the_thread_wherever_it_is() {
    loom::model(|| {
        let model = StopModel::new();
        let vcpu = thread::spawn({
            let model = model.clone();
            move || model.run()
        });
        model.request();
        vcpu.join().unwrap();
    });
}

#[test]
fn loom_a_stop_is_not_lost_on_a_thread_that_another_signal_has_interrupted() {
    loom::model(|| {
        let model = StopModel::new();
        let vcpu = thread::spawn({
            let model = model.clone();
            move || model.run()
        });
        let other = thread::spawn({
            let model = model.clone();
            move || model.kernel.signal()
        });
        model.request();
        other.join().unwrap();
        vcpu.join().unwrap();
    });
}
