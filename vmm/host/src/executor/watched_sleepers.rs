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
