//! Guests whose vCPUs contend for a lock, and which check at their end that it held.

use super::pool::{GuestProcess, ServicePool};

/// vCPUs of a guest, one of which has the CPU.
const VCPUS: u64 = 3;

/// A guest with a lock, and then the next one, as long as a test lasts.
pub struct Locks {
    name: &'static str,
    words: &'static str,
    /// Acquisitions of each vCPU.
    each: u64,
    guest: Option<GuestProcess>,
    /// How many guests have made all their acquisitions.
    done: u64,
}

impl Locks {
    /// Guests whose waiters idle by doorbells. The pool has such a guest afterwards.
    pub fn ringing(pool: &ServicePool) -> Self {
        Self::start(pool, "rings", "lock=ticket hints=on", 300_000)
    }

    /// Guests whose waiters halt. The pool has such a guest afterwards.
    pub fn halting(pool: &ServicePool) -> Self {
        Self::start(pool, "halts", "lock=mutex idle=hlt hints=on", 10_000)
    }

    fn start(pool: &ServicePool, name: &'static str, words: &'static str, each: u64) -> Self {
        let mut locks = Self {
            name,
            words,
            each,
            guest: None,
            done: 0,
        };
        locks.next(pool);
        locks
    }

    /// The name of each of the guests.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Starts the next guest if this one has ended. The pool, which runs, has a guest afterwards.
    pub fn go_on(&mut self, pool: &ServicePool) {
        if self.has_ended() {
            self.check();
            let what = format!("guest {} has left", self.name);
            pool.until(&what, |pool| {
                let guests = pool.guests();
                (!guests.iter().any(|guest| guest.name == self.name)).then_some(())
            });
            self.next(pool);
        }
    }

    fn next(&mut self, pool: &ServicePool) {
        let cmdline = format!("{} acquisitions={}", self.words, self.each);
        let cpus = VCPUS.to_string();
        let words = ["--cpus", &cpus, "--cmdline", &cmdline];
        let mut guest = pool.vm(self.name, &words);
        pool.until_joined(&mut guest);
        self.guest = Some(guest);
    }

    /// Whether the process of the guest has ended.
    pub fn has_ended(&mut self) -> bool {
        self.guest.as_mut().is_some_and(GuestProcess::has_ended)
    }

    /// Waits until the guest has joined a pool that was started again, or has come to its end.
    pub fn until_joined_again(&mut self, pool: &ServicePool) {
        if let Some(guest) = &mut self.guest {
            pool.until_joined(guest);
        }
    }

    /// Waits for the end of the guest. Returns how many have ended.
    pub fn finish(mut self) -> u64 {
        self.check();
        self.done
    }

    /// Waits for the end of the guest, and checks that it came to its end by itself and the lock held.
    fn check(&mut self) {
        let Some(guest) = self.guest.take() else {
            return;
        };
        let ran = guest.finish();
        assert_eq!(ran.code, 0, "{ran:?}");
        let guest = &ran.summary()["guests"][0];
        assert_eq!(guest["end"], "done", "{guest}");
        assert_eq!(guest["workload"]["counter_ok"], true, "{guest}");
        assert_eq!(guest["workload"]["acquisitions"], VCPUS * self.each);
        self.done += 1;
    }
}
