//! Token buckets: how many bytes and requests a device may handle by now. Pure, with the time as an
//! argument.

use baton_config::rate::{BucketConfig, RateLimit};

/// A time, ns.
pub(super) type Ns = u64;

/// A bucket.
///
/// It holds `size` tokens and fills evenly in its refill time; a burst lies beside it once. What is
/// larger than the bucket goes through when that is full, and the tokens that it lacks are a debt. So in
/// any time `t` no more than `size + burst + size * t / refill` tokens go through, and one request's debt.
#[derive(Clone, Debug)]
struct Bucket {
    size: u64,
    refill_ns: u64,
    burst: u64,
    /// Tokens times `refill_ns`, so that no part of one is lost; below zero for a debt.
    level: i128,
    /// When that was so.
    at: Ns,
}

impl Bucket {
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
            at: now,
        }
    }

    fn scaled(&self, tokens: u64) -> i128 {
        i128::from(tokens).saturating_mul(self.refill_ns.into())
    }

    /// When there are `tokens` in it, or as many as it holds.
    fn ready(&mut self, tokens: u64, now: Ns) -> Ns {
        let passed = now.saturating_sub(self.at);
        let full = self.scaled(self.size);
        let filled = i128::from(self.size).saturating_mul(passed.into());
        self.level = self.level.saturating_add(filled).min(full);
        self.at = self.at.max(now);
        let wanted = self.scaled(tokens.saturating_sub(self.burst)).min(full);
        let lacks = wanted.saturating_sub(self.level);
        if lacks <= 0 {
            return now;
        }
        let size = i128::from(self.size);
        let wait = (lacks - 1) / size + 1;
        self.at
            .saturating_add(u64::try_from(wait).unwrap_or(u64::MAX))
    }

    /// Takes `tokens` out, also those that are not in it.
    fn spend(&mut self, tokens: u64) {
        let of_burst = tokens.min(self.burst);
        self.burst -= of_burst;
        self.level = self.level.saturating_sub(self.scaled(tokens - of_burst));
    }
}

/// The buckets of one device, or of one direction of it.
#[derive(Clone, Debug)]
pub(super) struct Limiter {
    bandwidth: Option<Bucket>,
    ops: Option<Bucket>,
}

impl Limiter {
    /// `None`: no limit.
    pub(super) fn new(config: &RateLimit, now: Ns) -> Option<Self> {
        let bucket = |config: &BucketConfig| Bucket::new(config, now);
        let this = Self {
            bandwidth: config.bandwidth.as_ref().map(bucket),
            ops: config.ops.as_ref().map(bucket),
        };
        (this.bandwidth.is_some() || this.ops.is_some()).then_some(this)
    }

    /// Lets a request of `bytes` through and takes its tokens.
    ///
    /// # Errors
    /// When it may come back; nothing has been taken.
    pub(super) fn take(&mut self, bytes: u64, now: Ns) -> Result<(), Ns> {
        self.has_room(bytes, now)?;
        self.spend(bytes);
        Ok(())
    }

    /// Whether a request of `bytes` may go through.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(super) fn has_room(&mut self, bytes: u64, now: Ns) -> Result<(), Ns> {
        let mut ready = now;
        for (bucket, tokens) in [(&mut self.bandwidth, bytes), (&mut self.ops, 1)] {
            if let Some(bucket) = bucket {
                ready = ready.max(bucket.ready(tokens, now));
            }
        }
        match ready > now {
            true => Err(ready),
            false => Ok(()),
        }
    }

    /// Takes the tokens of a request of `bytes` that has gone through, however large it was.
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
