//! Token buckets: how many bytes and requests a device may handle in a time. Pure arithmetic; the time is an
//! argument.

use baton_config::rate::{BucketConfig, RateLimit};

/// A time, ns.
pub(super) type Ns = u64;

/// A bucket of tokens, each of which admits one byte or one request.
///
/// The bucket holds `size` tokens and is refilled evenly over its refill time. A burst of further tokens is
/// there once and is used first. A request that is larger than the bucket is admitted when the bucket is
/// full, and the missing tokens become a debt. So within any time `t` at most
/// `size + burst + size * t / refill` tokens are used, plus the debt of one request.
#[derive(Clone, Debug)]
struct TokenBucket {
    size: u64,
    refill_ns: u64,
    burst: u64,
    /// Tokens times `refill_ns`, so that no fraction of a token is lost; negative for a debt.
    level: i128,
    /// When the bucket had this level.
    updated: Ns,
}

impl TokenBucket {
    fn new(config: &BucketConfig, now: Ns) -> Self {
        let size = config.size.max(1);
        let refill_ns = u64::try_from(config.refill.as_nanos())
            .unwrap_or(u64::MAX)
            .max(1);
        Self {
            size,
            refill_ns,
            burst: config.burst,
            level: i128::from(size).saturating_mul(refill_ns.into()),
            updated: now,
        }
    }

    /// `tokens` in the unit of `level`.
    fn scaled(&self, tokens: u64) -> i128 {
        i128::from(tokens).saturating_mul(self.refill_ns.into())
    }

    /// When the bucket has `tokens`, or is full if it never has as many.
    fn ready_at(&mut self, tokens: u64, now: Ns) -> Ns {
        let passed = now.saturating_sub(self.updated);
        let full = self.scaled(self.size);
        let refilled = i128::from(self.size).saturating_mul(passed.into());
        self.level = self.level.saturating_add(refilled).min(full);
        self.updated = self.updated.max(now);
        let needed = self.scaled(tokens.saturating_sub(self.burst)).min(full);
        let missing = needed.saturating_sub(self.level);
        if missing <= 0 {
            return now;
        }
        let size = i128::from(self.size);
        let wait = (missing - 1) / size + 1;
        self.updated
            .saturating_add(u64::try_from(wait).unwrap_or(u64::MAX))
    }

    /// Takes `tokens`. Those that are missing become a debt.
    fn spend(&mut self, tokens: u64) {
        let of_burst = tokens.min(self.burst);
        self.burst -= of_burst;
        self.level = self.level.saturating_sub(self.scaled(tokens - of_burst));
    }
}

/// The buckets of one device, or of one direction of it: one for bytes and one for requests.
#[derive(Clone, Debug)]
pub(super) struct TokenBuckets {
    bandwidth: Option<TokenBucket>,
    ops: Option<TokenBucket>,
}

impl TokenBuckets {
    /// The full buckets for `config`; `None` if that is no limit.
    pub(super) fn new(config: &RateLimit, now: Ns) -> Option<Self> {
        let bucket = |config: &BucketConfig| TokenBucket::new(config, now);
        let this = Self {
            bandwidth: config.bandwidth.as_ref().map(bucket),
            ops: config.ops.as_ref().map(bucket),
        };
        (this.bandwidth.is_some() || this.ops.is_some()).then_some(this)
    }

    /// Admits a request of `bytes` and takes its tokens.
    ///
    /// # Errors
    /// The time at which the request would be admitted. No tokens have been taken.
    pub(super) fn take(&mut self, bytes: u64, now: Ns) -> Result<(), Ns> {
        self.check(bytes, now)?;
        self.spend(bytes);
        Ok(())
    }

    /// Whether a request of `bytes` would be admitted. Takes no tokens.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(super) fn check(&mut self, bytes: u64, now: Ns) -> Result<(), Ns> {
        let mut ready_at = now;
        for (bucket, tokens) in [(&mut self.bandwidth, bytes), (&mut self.ops, 1)] {
            if let Some(bucket) = bucket {
                ready_at = ready_at.max(bucket.ready_at(tokens, now));
            }
        }
        match ready_at > now {
            true => Err(ready_at),
            false => Ok(()),
        }
    }

    /// Takes the tokens of a request of `bytes` that has been handled, however large it was.
    pub(super) fn spend(&mut self, bytes: u64) {
        for (bucket, tokens) in [(&mut self.bandwidth, bytes), (&mut self.ops, 1)] {
            if let Some(bucket) = bucket {
                bucket.spend(tokens);
            }
        }
    }
}

#[cfg(test)]
mod tests;
