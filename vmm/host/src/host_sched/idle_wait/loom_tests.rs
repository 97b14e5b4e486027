use super::*;
use crate::sync::{Arc, thread};

#[test]
fn loom_a_wake_reaches_a_vcpu_that_is_idle_or_becomes_idle() {
    loom::model(|| {
        let idle = Arc::new(IdleWait::new());
        let vcpu = thread::spawn({
            let idle = idle.clone();
            move || idle.wait(None)
        });
        idle.wake();
        vcpu.join().unwrap();
    });
}
