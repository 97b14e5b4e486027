//! Applies a rate limit to a queue: a request without tokens stays in the queue, and a timer wakes the
//! device's thread when there are tokens again.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use baton_config::rate::RateLimit;
use baton_os::sys;
use vmm_sys_util::timerfd::TimerFd;

use super::token_bucket::{Ns, TokenBuckets};

/// The timer expires no earlier than this, so that the thread does not wake for each request. Nothing is lost:
/// the buckets are refilled meanwhile, and each has room for the tokens of at least ten times as long.
const MIN_WAIT_NS: Ns = 1_000_000;

/// The rate limit of one queue. Without a limit each request is admitted.
pub(super) struct RateLimiter(Option<Limit>);

struct Limit {
    buckets: TokenBuckets,
    now: Now,
    timer: TimerFd,
    /// When the timer expires; in the past if it has expired.
    expires_at: Ns,
}

/// Returns the current time, ns; tests have their own.
type Now = Box<dyn Fn() -> Ns + Send>;

impl RateLimiter {
    /// # Errors
    /// If there is a limit and the host has no timer for it.
    pub(super) fn new(limit: &RateLimit) -> io::Result<Self> {
        Self::with_clock(limit, Box::new(sys::monotonic_ns))
    }

    pub(super) fn with_clock(limit: &RateLimit, now: Now) -> io::Result<Self> {
        let Some(buckets) = TokenBuckets::new(limit, now()) else {
            return Ok(Self(None));
        };
        Ok(Self(Some(Limit {
            buckets,
            now,
            timer: TimerFd::new()?,
            expires_at: 0,
        })))
    }

    /// Whether a request of `bytes` is admitted; if so, its tokens are taken. If not, the request must stay in
    /// the queue, which must be processed again when [`Self::timer`] expires.
    pub(super) fn admit(&mut self, bytes: impl FnOnce() -> u64) -> bool {
        self.0
            .as_mut()
            .is_none_or(|limit| limit.apply(|buckets, now| buckets.take(bytes(), now)))
    }

    /// As [`Self::admit`], but for a request of unknown size: whether there are any tokens. The caller
    /// must pass the size to [`Self::spend`] when the request is handled.
    pub(super) fn has_tokens(&mut self) -> bool {
        self.0
            .as_mut()
            .is_none_or(|limit| limit.apply(|buckets, now| buckets.check(1, now)))
    }

    /// A request of `bytes` has been handled after [`Self::has_tokens`].
    pub(super) fn spend(&mut self, bytes: u64) {
        if let Some(limit) = &mut self.0 {
            limit.buckets.spend(bytes);
        }
    }

    /// A file that becomes readable when there are tokens for a request that had to stay in the queue. `None`
    /// without a limit.
    pub(super) fn timer(&self) -> Option<RawFd> {
        self.0.as_ref().map(|limit| limit.timer.as_raw_fd())
    }
}

impl Limit {
    /// Whether `admit` succeeds now. If it does not, sets the timer for the time that it returns.
    fn apply(&mut self, admit: impl FnOnce(&mut TokenBuckets, Ns) -> Result<(), Ns>) -> bool {
        let now = (self.now)();
        let Err(ready_at) = admit(&mut self.buckets, now) else {
            return true;
        };
        if self.expires_at <= now {
            let wait = ready_at.saturating_sub(now).max(MIN_WAIT_NS);
            // A timer accepts each duration except zero. If it fails nevertheless, the queue is processed at
            // the driver's next notification.
            if self.timer.reset(Duration::from_nanos(wait), None).is_ok() {
                self.expires_at = now.saturating_add(wait);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{TestClock, per_100ms};
    use super::*;

    #[test]
    fn a_thread_that_finds_no_tokens_is_woken_once_for_that() {
        let clock = TestClock::default();
        let mut limiter = clock.rate_limiter(RateLimit {
            ops: per_100ms(2),
            ..RateLimit::default()
        });
        let expires_at = |limiter: &RateLimiter| limiter.0.as_ref().map(|limit| limit.expires_at);
        assert!(limiter.admit(|| 0) && limiter.admit(|| 0));
        assert_eq!(expires_at(&limiter), Some(0));
        assert!(!limiter.admit(|| 0));
        assert_eq!(expires_at(&limiter), Some(50_000_000));
        clock.pass_ms(20);
        assert!(!limiter.admit(|| 0));
        assert_eq!(expires_at(&limiter), Some(50_000_000));
        clock.pass_ms(30);
        assert!(limiter.admit(|| 0));
    }

    #[test]
    fn a_thread_is_woken_for_several_tokens_at_once() {
        let mut limiter = TestClock::default().rate_limiter(RateLimit {
            ops: per_100ms(1000),
            ..RateLimit::default()
        });
        while limiter.admit(|| 0) {}
        let expires_at = limiter.0.as_ref().map(|limit| limit.expires_at);
        assert_eq!(
            expires_at,
            Some(MIN_WAIT_NS),
            "the next token comes after 100 us"
        );
    }

    #[test]
    fn without_a_limit_there_is_no_timer_and_each_request_is_admitted() {
        let mut limiter = RateLimiter::new(&RateLimit::default()).expect("no timer");
        assert!(limiter.timer().is_none());
        assert!((0..1000).all(|_| limiter.admit(|| u64::MAX) && limiter.has_tokens()));
    }
}
