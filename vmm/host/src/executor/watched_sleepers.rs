//! The vCPUs of other processes that an executor has put to sleep, for whose wake it waits while it has nothing to run.
//!
//! Otherwise their wakes come by the thread that reads wake files, from which the executor is kicked: two threads that
//! have to run, often on another host CPU, before the vCPU does. A vCPU that wakes while the executor runs another one
//! comes by that way.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use baton_link::answer_watch::{AnswerWatch, WaitEnd};

use super::foreign_vcpu::ForeignSleep;
use super::kick_target::KickTarget;

/// Most of them. The kernel looks each one's word up at each sleep of the executor.
const MOST: usize = 8;

/// The vCPUs that an executor has put to sleep last.
#[derive(Default)]
pub(super) struct WatchedSleepers {
    // Not what keeps them: a guest that has left releases what it has of the host.
    last: VecDeque<Weak<dyn ForeignSleep>>,
    /// Whether the host's kernel cannot wait for several of them.
    is_unsupported: bool,
}

impl WatchedSleepers {
    /// The executor has put the vCPU of `sleep` to sleep.
    pub(super) fn add(&mut self, sleep: &Arc<dyn ForeignSleep>) {
        if self.is_unsupported {
            return;
        }
        let sleep = Arc::downgrade(sleep);
        self.last.retain(|other| !other.ptr_eq(&sleep));
        self.last.truncate(MOST - 1);
        self.last.push_front(sleep);
    }

    /// Sleeps at `target` until a kick, until one of the vCPUs has woken, which is then back in the pool, or for
    /// `timeout`. False: none of them sleeps, and the executor has not slept.
    pub(super) fn sleep(&mut self, target: &KickTarget, timeout: Option<Duration>) -> bool {
        let (sleepers, watches) = self.begin();
        if watches.is_empty() {
            return false;
        }
        let end = target.sleep_watching(&watches, timeout);
        drop(watches);
        for (index, sleep) in sleepers.iter().enumerate() {
            let has_woken = sleep.check_woken();
            if end == Some(WaitEnd::Answer(index)) && !has_woken {
                // A process that wakes the executor for nothing does so once.
                let liar = Arc::downgrade(sleep);
                self.last.retain(|other| !other.ptr_eq(&liar));
            }
        }
        if end == Some(WaitEnd::Unsupported) {
            self.last.clear();
            self.is_unsupported = true;
        }
        true
    }

    /// Those that sleep, and the waits for them. Others are forgotten.
    fn begin(&mut self) -> (Vec<Arc<dyn ForeignSleep>>, Vec<AnswerWatch>) {
        let (mut sleepers, mut watches) = (Vec::new(), Vec::new());
        self.last.retain(|sleep| {
            let Some(sleep) = sleep.upgrade() else {
                return false;
            };
            let watch = sleep.watch();
            let sleeps = watch.is_some();
            if let Some(watch) = watch {
                watches.push(watch);
                sleepers.push(sleep);
            }
            sleeps
        });
        (sleepers, watches)
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use baton_link::answer::Answer;
    use baton_link::command::Command;
    use baton_link::pages::GuestPages;
    use baton_link::pool_side::{PoolGuestLink, PoolSide};
    use baton_link::thread_side::{GuestPoolLink, ThreadSide};

    use super::super::foreign_vcpu::ForeignVcpu;
    use super::super::interrupt_sleep::InterruptSleep;
    use super::*;

    /// A vCPU that sleeps.
    struct Sleeper {
        side: Mutex<PoolSide>,
        is_taken: AtomicBool,
        checks: AtomicUsize,
    }

    impl InterruptSleep for Sleeper {
        fn interrupt_sleep(&self) {}
    }

    impl ForeignSleep for Sleeper {
        fn begin_sleep(&self, _: Box<ForeignVcpu>) {}

        fn watch(&self) -> Option<AnswerWatch> {
            self.side.lock().expect("no panic").watch()
        }

        fn check_woken(&self) -> bool {
            self.checks.fetch_add(1, Ordering::Relaxed);
            let woken = matches!(
                self.side.lock().expect("no panic").take_answer(),
                Ok(Some(_))
            );
            self.is_taken.fetch_or(woken, Ordering::Relaxed);
            woken
        }

        fn check_asleep(&self) {}

        fn close(&self) {}

        fn stop(&self, _: PoolSide) {}

        fn forget(&self) {}
    }

    /// Vcpus that sleep, and their threads.
    fn sleepers(count: u32) -> (PoolGuestLink, Vec<Arc<Sleeper>>, Vec<ThreadSide>) {
        let (theirs, file) = GuestPages::create(count).expect("pages");
        let link = PoolGuestLink::new(GuestPages::accept(&file, count).expect("accepted"));
        let mut threads = GuestPoolLink::new(theirs).vcpus();
        let sides = link.vcpus().into_iter().zip(&mut threads);
        let asleep = sides.map(|(mut side, thread)| {
            side.give(&Command::Sleep).expect("given");
            assert_eq!(thread.wait(), Ok(Command::Sleep));
            Arc::new(Sleeper {
                side: Mutex::new(side),
                is_taken: AtomicBool::new(false),
                checks: AtomicUsize::new(0),
            })
        });
        let asleep = asleep.collect();
        (link, asleep, threads)
    }

    fn watched(sleepers: &[Arc<Sleeper>]) -> WatchedSleepers {
        let mut watched = WatchedSleepers::default();
        for sleeper in sleepers {
            let sleep: Arc<dyn ForeignSleep> = Arc::clone(sleeper) as _;
            // As one that halts again and again.
            watched.add(&sleep);
            watched.add(&sleep);
        }
        watched
    }

    #[test]
    fn the_executor_takes_the_vcpu_that_wakes_and_sleeps_on_for_the_others() {
        let (_link, sleepers, mut threads) = sleepers(3);
        let (mut watched, target) = (watched(&sleepers), KickTarget::new());
        threads[1].answer(&Answer::Woken).expect("commanded");
        while !sleepers[1].is_taken.load(Ordering::Relaxed) {
            assert!(watched.sleep(&target, None));
        }
        assert_eq!(watched.last.len(), 3);
        target.kick();
        assert!(watched.sleep(&target, None), "a kick keeps it awake");
        assert_eq!(watched.last.len(), 2, "one sleeps no more");
    }

    #[test]
    fn only_the_vcpus_that_slept_last_are_watched_and_none_that_is_gone() {
        let (_link, mut sleepers, _threads) = sleepers(MOST as u32 + 2);
        let (mut watched, target) = (watched(&sleepers), KickTarget::new());
        assert_eq!(watched.last.len(), MOST);
        target.kick();
        assert!(watched.sleep(&target, None));
        let checks = |sleeper: &Arc<Sleeper>| sleeper.checks.load(Ordering::Relaxed);
        assert_eq!(
            sleepers[..3].iter().map(checks).collect::<Vec<_>>(),
            [0, 0, 1]
        );
        sleepers.clear();
        assert!(!watched.sleep(&target, None) && watched.last.is_empty());
    }
}
