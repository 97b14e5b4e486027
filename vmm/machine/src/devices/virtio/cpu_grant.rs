//! CPU grants: a device's thread works when the scheduler grants it CPU time, and reports how much it has
//! used, so that its guest is charged for that.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use baton_os::sys;

/// Grants CPU time to the thread of one device. That thread calls all methods but [`CpuGranter::close`].
pub trait CpuGranter: fmt::Debug + Send + Sync {
    /// Waits until the thread may work. Returns for how much CPU time, ns; `None` if the thread may never work
    /// again, because the guest has ended or its scheduler is gone.
    fn acquire(&self) -> Option<u64>;

    /// The thread stops working for now. It has used `spent_ns` of CPU time since the last report.
    fn release(&self, spent_ns: u64);

    /// Whether the thread should stop soon although its grant has not expired.
    fn is_revoked(&self) -> bool;

    /// Ends a wait in [`CpuGranter::acquire`], and each later one immediately.
    fn close(&self);
}

/// The CPU grant of one device's thread. Without a [`CpuGranter`] the thread may always work.
#[derive(Debug, Default)]
pub(super) struct CpuGrant {
    granter: OnceLock<Arc<dyn CpuGranter>>,
    /// CPU time of the thread that has been reported, ns.
    reported: AtomicU64,
    /// When the grant expires, `CLOCK_MONOTONIC` ns; 0 without a grant. The thread's own CPU clock would be
    /// exact, but costs a system call, and this is checked after each piece of work.
    expires_at: AtomicU64,
    /// There will be no further grant.
    closed: AtomicBool,
}

impl CpuGrant {
    /// From now on the thread needs grants of `granter`. Only the first call counts.
    pub(super) fn require(&self, granter: Arc<dyn CpuGranter>) {
        let _ = self.granter.set(granter);
    }

    /// Before work, on the device's thread: waits for a grant. Returns false if there will be no further grant.
    pub(super) fn acquire(&self) -> bool {
        let Some(granter) = self.granter.get() else {
            return true;
        };
        match granter.acquire() {
            Some(limit_ns) => {
                let expires_at = sys::monotonic_ns().saturating_add(limit_ns).max(1);
                self.expires_at.store(expires_at, Ordering::Relaxed);
            }
            None => self.closed.store(true, Ordering::Relaxed),
        }
        !self.is_closed()
    }

    /// Whether there will be no further grant.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// After work, on the device's thread.
    pub(super) fn release(&self) {
        if let Some(granter) = self.granter.get() {
            let now = sys::thread_cpu_ns();
            self.expires_at.store(0, Ordering::Relaxed);
            granter.release(now.saturating_sub(self.reported.swap(now, Ordering::Relaxed)));
        }
    }

    /// Between two pieces of work, on the device's thread: if the grant has expired or is revoked, reports
    /// the CPU time used so far and waits for the next grant. Does nothing on a thread without a grant.
    pub(super) fn renew_if_expired(&self) {
        let expires_at = self.expires_at.load(Ordering::Relaxed);
        let Some(granter) = self.granter.get().filter(|_| expires_at != 0) else {
            return;
        };
        if granter.is_revoked() || sys::monotonic_ns() >= expires_at {
            self.release();
            self.acquire();
        }
    }

    /// The device ends, so its thread must no longer wait for a grant.
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

    /// Grants `limit` each time, and records the calls.
    #[derive(Debug, Default)]
    struct Recorder {
        limit: u64,
        revoked: AtomicBool,
        closed: AtomicBool,
        calls: Mutex<Vec<&'static str>>,
        spent: AtomicU64,
    }

    impl Recorder {
        fn record(&self, call: &'static str) {
            self.calls.lock().expect("no panic").push(call);
        }
    }

    impl CpuGranter for Recorder {
        fn acquire(&self) -> Option<u64> {
            self.record("acquire");
            (!self.closed.load(Ordering::Relaxed)).then_some(self.limit)
        }

        fn release(&self, spent_ns: u64) {
            self.spent.fetch_add(spent_ns, Ordering::Relaxed);
            self.record("release");
        }

        fn is_revoked(&self) -> bool {
            self.revoked.load(Ordering::Relaxed)
        }

        fn close(&self) {
            self.record("close");
        }
    }

    fn with_limit(limit: u64) -> (CpuGrant, Arc<Recorder>) {
        let recorder = Arc::new(Recorder {
            limit,
            ..Recorder::default()
        });
        let grant = CpuGrant::default();
        grant.require(recorder.clone());
        (grant, recorder)
    }

    #[test]
    fn all_cpu_time_of_the_thread_is_reported() {
        std::thread::spawn(|| {
            let (grant, recorder) = with_limit(u64::MAX);
            for _ in 0..3 {
                grant.acquire();
                grant.renew_if_expired();
                grant.release();
            }
            let reported = recorder.spent.load(Ordering::Relaxed);
            assert_eq!(reported, grant.reported.load(Ordering::Relaxed));
            assert!(reported > 0 && reported <= sys::thread_cpu_ns());
            let calls = recorder.calls.lock().expect("no panic");
            assert_eq!(*calls, ["acquire", "release"].repeat(3));
        })
        .join()
        .expect("thread");
    }

    #[test]
    fn long_work_is_reported_and_waits_for_a_grant_between_its_pieces() {
        let (grant, recorder) = with_limit(0);
        grant.renew_if_expired();
        grant.acquire();
        grant.renew_if_expired();
        grant.release();
        grant.renew_if_expired();
        let calls = recorder.calls.lock().expect("no panic");
        assert_eq!(*calls, ["acquire", "release", "acquire", "release"]);
    }

    #[test]
    fn work_whose_grant_is_revoked_waits_for_another() {
        let (grant, recorder) = with_limit(u64::MAX);
        grant.acquire();
        grant.renew_if_expired();
        recorder.revoked.store(true, Ordering::Relaxed);
        grant.renew_if_expired();
        let calls = recorder.calls.lock().expect("no panic");
        assert_eq!(*calls, ["acquire", "release", "acquire"]);
    }

    #[test]
    fn a_thread_that_gets_no_further_grant_does_not_work() {
        let (grant, recorder) = with_limit(0);
        assert!(grant.acquire() && !grant.is_closed());
        recorder.closed.store(true, Ordering::Relaxed);
        grant.renew_if_expired();
        assert!(grant.is_closed() && !grant.acquire());
    }

    #[test]
    fn without_a_granter_nothing_waits() {
        let grant = CpuGrant::default();
        assert!(grant.acquire());
        grant.renew_if_expired();
        grant.release();
        grant.close();
    }
}
