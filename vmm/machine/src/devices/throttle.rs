//! A device's limit at work: what has no tokens stays in its queue, and a timer calls the device's thread
//! back when there are some.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use baton_config::rate::RateLimit;
use baton_os::sys;
use vmm_sys_util::timerfd::TimerFd;

use super::rate_limit::{Limiter, Ns};

/// The thread comes back no earlier than this, so that a queue does not wake it for each request:
/// tokens go on coming meanwhile, and every bucket holds those of ten times as long.
const PAUSE_NS: Ns = 1_000_000;

/// The limit of one queue; without one all goes through.
pub(super) struct Throttle(Option<Limited>);

struct Limited {
    limiter: Limiter,
    clock: Clock,
    timer: TimerFd,
    /// When the timer expires, if it has not.
    called: Ns,
}

/// Where the time comes from; tests have their own.
type Clock = Box<dyn Fn() -> Ns + Send>;

impl Throttle {
    /// # Errors
    /// If the host has no timer.
    pub(super) fn new(limit: &RateLimit) -> io::Result<Self> {
        Self::with_clock(limit, Box::new(sys::monotonic_ns))
    }

    pub(super) fn with_clock(limit: &RateLimit, clock: Clock) -> io::Result<Self> {
        let Some(limiter) = Limiter::new(limit, clock()) else {
            return Ok(Self(None));
        };
        Ok(Self(Some(Limited {
            limiter,
            clock,
            timer: TimerFd::new()?,
            called: 0,
        })))
    }

    /// Whether a request of so many bytes may go through; its tokens are taken then. If not, it is to
    /// stay in the queue, which is to be served again when [`Self::calls`] says.
    pub(super) fn admits(&mut self, bytes: impl FnOnce() -> u64) -> bool {
        self.0
            .as_mut()
            .is_none_or(|limited| limited.ask(|limiter, now| limiter.take(bytes(), now)))
    }

    /// The same before the size is known: whether there are tokens at all. What goes through is to be
    /// told by [`Self::spend`].
    pub(super) fn has_tokens(&mut self) -> bool {
        self.0
            .as_mut()
            .is_none_or(|limited| limited.ask(|limiter, now| limiter.has_room(1, now)))
    }

    /// So many bytes have gone through.
    pub(super) fn spend(&mut self, bytes: u64) {
        if let Some(limited) = &mut self.0 {
            limited.limiter.spend(bytes);
        }
    }

    /// What becomes readable when there are tokens for what was left in the queue; reported once each
    /// time.
    pub(super) fn calls(&self) -> Option<RawFd> {
        self.0.as_ref().map(|limited| limited.timer.as_raw_fd())
    }
}

impl Limited {
    fn ask(&mut self, ask: impl FnOnce(&mut Limiter, Ns) -> Result<(), Ns>) -> bool {
        let now = (self.clock)();
        let Err(ready) = ask(&mut self.limiter, now) else {
            return true;
        };
        if self.called <= now {
            let pause = ready.saturating_sub(now).max(PAUSE_NS);
            // It takes every time that is not zero. If it did not, the next notification would do.
            if self.timer.reset(Duration::from_nanos(pause), None).is_ok() {
                self.called = now.saturating_add(pause);
            }
        }
        false
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use baton_config::rate::BucketConfig;

    /// A clock that stands still until it is set on.
    #[derive(Clone, Default)]
    pub(in super::super) struct Time(Arc<AtomicU64>);

    impl Time {
        pub(in super::super) fn pass_ms(&self, ms: u64) {
            self.0.fetch_add(ms * 1_000_000, Ordering::Relaxed);
        }

        /// What a limit lets through at this time.
        pub(in super::super) fn throttle(&self, limit: RateLimit) -> Throttle {
            let time = Arc::clone(&self.0);
            let clock = Box::new(move || time.load(Ordering::Relaxed));
            Throttle::with_clock(&limit, clock).expect("a timer")
        }
    }

    /// So much in each 100 ms.
    pub(in super::super) fn per_100ms(size: u64) -> Option<BucketConfig> {
        Some(BucketConfig {
            size,
            refill: Duration::from_millis(100),
            burst: 0,
        })
    }

    #[test]
    fn a_thread_that_finds_no_tokens_is_called_once_for_that() {
        let time = Time::default();
        let mut throttle = time.throttle(RateLimit {
            ops: per_100ms(2),
            ..RateLimit::default()
        });
        let called = |throttle: &Throttle| throttle.0.as_ref().map(|limited| limited.called);
        assert!(throttle.admits(|| 0) && throttle.admits(|| 0));
        assert_eq!(called(&throttle), Some(0));
        assert!(!throttle.admits(|| 0));
        assert_eq!(called(&throttle), Some(50_000_000));
        time.pass_ms(20);
        assert!(!throttle.admits(|| 0));
        assert_eq!(called(&throttle), Some(50_000_000));
        time.pass_ms(30);
        assert!(throttle.admits(|| 0));
    }

    #[test]
    fn without_a_limit_there_is_no_timer_and_all_goes_through() {
        let mut throttle = Throttle::new(&RateLimit::default()).expect("no timer");
        assert!(throttle.calls().is_none());
        assert!((0..1000).all(|_| throttle.admits(|| u64::MAX) && throttle.has_tokens()));
    }
}
