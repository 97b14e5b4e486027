//! How much CPU time a thread has used that nobody has been told of yet.
//!
//! A halted vCPU costs time on the thread where it sleeps: to put it to sleep, for each interrupt
//! that reaches it there, to wake it, and to give it back. Each report begins where the last one
//! ended, so what the thread did after its last report is in the next one, and nothing is lost
//! between two of them.

use baton_os::sys;

/// CPU time of the thread that made it, reported piece by piece; to be used there.
#[derive(Debug)]
pub(crate) struct Spent {
    /// The thread's CPU time at the last report, ns.
    reported_ns: u64,
}

impl Spent {
    /// Begins now.
    pub(crate) fn from_now() -> Self {
        Self {
            reported_ns: sys::thread_cpu_ns(),
        }
    }

    /// CPU time since the last report, ns.
    pub(crate) fn report(&mut self) -> u64 {
        let now = sys::thread_cpu_ns();
        now.saturating_sub(std::mem::replace(&mut self.reported_ns, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reports_of_a_thread_add_up_to_its_cpu_time() {
        std::thread::spawn(|| {
            let before = sys::thread_cpu_ns();
            let mut spent = Spent::from_now();
            let between = sys::thread_cpu_ns();
            let mut sum = 0;
            for rounds in [10_000, 0, 100_000] {
                (0..rounds).for_each(|_| std::hint::spin_loop());
                sum += spent.report();
            }
            // From somewhere between `before` and `between`, to the last report.
            assert!(before + sum <= spent.reported_ns && spent.reported_ns <= between + sum);
            assert!(spent.reported_ns <= sys::thread_cpu_ns());
        })
        .join()
        .expect("thread");
    }
}
