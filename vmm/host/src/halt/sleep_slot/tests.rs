#[cfg(not(loom))]
mod one_thread {
    use super::super::SleepSlot;

    #[test]
    fn a_full_slot_returns_the_second_vcpu() {
        let slot = SleepSlot::<u8, ()>::new();
        assert_eq!(slot.put(1), Ok(()));
        assert_eq!(slot.put(2), Err(2));
        assert_eq!(slot.take(), Some(1));
        assert!(slot.begin_sleep(()));
        assert_eq!(slot.put(3), Err(3));
        slot.end_sleep();
        assert_eq!(slot.put(4), Ok(()));
    }

    #[test]
    fn an_interruption_before_a_put_ends_the_sleep_of_that_vcpu_and_of_no_other() {
        let slot = SleepSlot::<u8, ()>::new();
        slot.interrupt(|()| unreachable!("no vCPU sleeps"));
        assert_eq!(slot.put(1), Ok(()));
        assert_eq!(slot.take(), Some(1));
        assert!(!slot.begin_sleep(()));
        slot.end_sleep();
        assert_eq!(slot.put(2), Ok(()));
        assert_eq!(slot.take(), Some(2));
        assert!(slot.begin_sleep(()));
    }

    #[test]
    fn a_closed_slot_gives_out_the_vcpu_that_it_has_and_takes_no_more() {
        let slot = SleepSlot::<u8, ()>::new();
        assert_eq!(slot.put(1), Ok(()));
        slot.close(|()| unreachable!("no vCPU sleeps"));
        assert_eq!(slot.take(), Some(1));
        assert!(!slot.begin_sleep(()));
        slot.end_sleep();
        assert_eq!(slot.put(2), Err(2));
        assert_eq!(slot.take(), None);
    }
}

/// The protocol under every interleaving. `KVM_RUN` is modelled as a wait that only
/// `immediate_exit` ends, so a lost interruption is a deadlock, which loom reports.
#[cfg(loom)]
#[allow(clippy::unwrap_used)]
mod interleavings {
    use super::super::SleepSlot;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use loom::thread::{self, Thread};

    struct Model {
        slot: SleepSlot<u8, Thread>,
        immediate_exit: AtomicBool,
        returned: AtomicUsize,
    }

    impl Model {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                slot: SleepSlot::new(),
                immediate_exit: AtomicBool::new(false),
                returned: AtomicUsize::new(0),
            })
        }

        fn end_run(&self, sleeping: &Thread) {
            self.immediate_exit.store(true, Ordering::Relaxed);
            sleeping.unpark();
        }

        /// The sleeping thread.
        fn serve(&self) {
            while self.slot.take().is_some() {
                self.immediate_exit.store(false, Ordering::Relaxed);
                if self.slot.begin_sleep(thread::current()) {
                    while !self.immediate_exit.load(Ordering::Relaxed) {
                        thread::park();
                    }
                    assert!(
                        self.slot.is_interrupted(),
                        "nothing else ends a run in this model"
                    );
                }
                self.slot.end_sleep();
                self.immediate_exit.store(false, Ordering::Relaxed);
                self.returned.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    #[test]
    fn loom_a_put_and_its_interruption_may_come_in_either_order() {
        loom::model(|| {
            let model = Model::new();
            let sleeping = thread::spawn({
                let model = model.clone();
                move || model.serve()
            });
            let interrupting = thread::spawn({
                let model = model.clone();
                move || model.slot.interrupt(|thread| model.end_run(thread))
            });
            assert_eq!(model.slot.put(1), Ok(()));
            interrupting.join().unwrap();
            model.slot.close(|thread| model.end_run(thread));
            sleeping.join().unwrap();
            assert_eq!(model.returned.load(Ordering::Acquire), 1);
        });
    }

    #[test]
    fn loom_closing_gives_back_the_vcpu_in_the_slot() {
        loom::model(|| {
            let model = Model::new();
            let sleeping = thread::spawn({
                let model = model.clone();
                move || model.serve()
            });
            let put = model.slot.put(1).is_ok();
            model.slot.close(|thread| model.end_run(thread));
            sleeping.join().unwrap();
            assert!(put && model.returned.load(Ordering::Acquire) == 1);
        });
    }
}
