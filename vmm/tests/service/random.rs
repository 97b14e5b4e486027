//! Random moments.

use std::thread;
use std::time::Duration;

/// Random numbers from a seed (SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators").
pub struct Random(u64);

impl Random {
    /// With the seed of the environment, or another one each time. The seed is printed.
    pub fn new() -> Self {
        let time = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_nanos();
        let seed = match std::env::var("BATON_SEED") {
            Ok(text) => text.parse().expect("a number in BATON_SEED"),
            Err(_) => time as u64,
        };
        println!("BATON_SEED={seed}");
        Self(seed)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    /// Lets a random time pass, at most `longest`, in microseconds: what follows may meet the others anywhere in
    /// what they do.
    pub fn pass_time(&mut self, longest: u64) {
        thread::sleep(Duration::from_micros(self.below(longest)));
    }
}
