//! Leave to work: a device's thread works when the scheduler in charge lets it, and reports what that
//! took, so that its guest pays for it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use baton_os::sys;

/// Who lets one device's thread work. All methods but [`Granter::close`] are called by that thread.
pub trait Granter: fmt::Debug + Send + Sync {
    /// Waits until the thread may work. Gives for how much CPU time, ns; `None`: never again, for the
    /// guest has ended or its scheduler is gone.
    fn begin(&self) -> Option<u64>;

    /// The thread stops for now; it has used `spent_ns` of CPU time since it said so last.
    fn end(&self, spent_ns: u64);

    /// Whether it should stop soon, though its time is not over.
    fn is_revoked(&self) -> bool;

    /// Ends a wait in [`Granter::begin`], and every later one at its begin.
    fn close(&self);
}

/// What a device's thread knows of its leave. Without a [`Granter`] it works whenever it likes.
#[derive(Debug, Default)]
pub(super) struct Leave {
    granter: OnceLock<Arc<dyn Granter>>,
    /// CPU time of the thread that has been reported, ns.
    reported: AtomicU64,
    /// When its leave is over, `CLOCK_MONOTONIC` ns; 0 while it has none. The thread's own clock would tell
    /// exactly, but takes a system call, and this is asked after each piece of work.
    until: AtomicU64,
    /// There will be no further one.
    over: AtomicBool,
}

impl Leave {
    /// From now on `granter` says when to work. Only the first one counts.
    pub(super) fn ask_from_now_on(&self, granter: Arc<dyn Granter>) {
        let _ = self.granter.set(granter);
    }

    /// Before work, on the device's thread. False: there is to be none any more.
    pub(super) fn begin(&self) -> bool {
        let Some(granter) = self.granter.get() else {
            return true;
        };
        match granter.begin() {
            Some(limit) => {
                let until = sys::monotonic_ns().saturating_add(limit).max(1);
                self.until.store(until, Ordering::Relaxed);
            }
            None => self.over.store(true, Ordering::Relaxed),
        }
        !self.is_over()
    }

    /// Whether the thread shall never work again.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// After work, on the device's thread.
    pub(super) fn end(&self) {
        if let Some(granter) = self.granter.get() {
            let now = sys::thread_cpu_ns();
            self.until.store(0, Ordering::Relaxed);
            granter.end(now.saturating_sub(self.reported.swap(now, Ordering::Relaxed)));
        }
    }

    /// Between two pieces of work, on the device's thread: if the leave is over, reports what the work
    /// took so far and waits for the next. Does nothing in a thread that has no leave.
    pub(super) fn pause_if_over(&self) {
        let until = self.until.load(Ordering::Relaxed);
        let Some(granter) = self.granter.get().filter(|_| until != 0) else {
            return;
        };
        if granter.is_revoked() || sys::monotonic_ns() >= until {
            self.end();
            self.begin();
        }
    }

    /// The device ends: its thread waits no longer.
    pub(super) fn close(&self) {
        if let Some(granter) = self.granter.get() {
            granter.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Grants `limit` each time, and keeps a list of what it was told.
    #[derive(Debug, Default)]
    struct Recorder {
        limit: u64,
        revoked: AtomicBool,
        closed: AtomicBool,
        told: Mutex<Vec<&'static str>>,
        spent: AtomicU64,
    }

    impl Recorder {
        fn tell(&self, what: &'static str) {
            self.told.lock().expect("no panic").push(what);
        }
    }

    impl Granter for Recorder {
        fn begin(&self) -> Option<u64> {
            self.tell("begin");
            (!self.closed.load(Ordering::Relaxed)).then_some(self.limit)
        }

        fn end(&self, spent_ns: u64) {
            self.spent.fetch_add(spent_ns, Ordering::Relaxed);
            self.tell("end");
        }

        fn is_revoked(&self) -> bool {
            self.revoked.load(Ordering::Relaxed)
        }

        fn close(&self) {
            self.tell("close");
        }
    }

    fn with_limit(limit: u64) -> (Leave, Arc<Recorder>) {
        let recorder = Arc::new(Recorder {
            limit,
            ..Recorder::default()
        });
        let leave = Leave::default();
        leave.ask_from_now_on(recorder.clone());
        (leave, recorder)
    }

    #[test]
    fn all_cpu_time_of_the_thread_is_reported() {
        std::thread::spawn(|| {
            let (leave, recorder) = with_limit(u64::MAX);
            for _ in 0..3 {
                leave.begin();
                leave.pause_if_over();
                leave.end();
            }
            let reported = recorder.spent.load(Ordering::Relaxed);
            assert_eq!(reported, leave.reported.load(Ordering::Relaxed));
            assert!(reported > 0 && reported <= sys::thread_cpu_ns());
            let told = recorder.told.lock().expect("no panic");
            assert_eq!(*told, ["begin", "end"].repeat(3));
        })
        .join()
        .expect("thread");
    }

    #[test]
    fn long_work_is_reported_and_waits_for_leave_between_its_pieces() {
        let (leave, recorder) = with_limit(0);
        leave.pause_if_over();
        leave.begin();
        leave.pause_if_over();
        leave.end();
        leave.pause_if_over();
        let told = recorder.told.lock().expect("no panic");
        assert_eq!(*told, ["begin", "end", "begin", "end"]);
    }

    #[test]
    fn work_whose_leave_is_revoked_waits_for_another() {
        let (leave, recorder) = with_limit(u64::MAX);
        leave.begin();
        leave.pause_if_over();
        recorder.revoked.store(true, Ordering::Relaxed);
        leave.pause_if_over();
        let told = recorder.told.lock().expect("no panic");
        assert_eq!(*told, ["begin", "end", "begin"]);
    }

    #[test]
    fn who_gets_no_leave_any_more_does_not_work() {
        let (leave, recorder) = with_limit(0);
        assert!(leave.begin() && !leave.is_over());
        recorder.closed.store(true, Ordering::Relaxed);
        leave.pause_if_over();
        assert!(leave.is_over() && !leave.begin());
    }

    #[test]
    fn without_a_scheduler_that_cares_nothing_waits() {
        let leave = Leave::default();
        leave.begin();
        leave.pause_if_over();
        leave.end();
        leave.close();
    }
}
