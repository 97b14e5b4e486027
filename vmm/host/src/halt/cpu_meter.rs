//! CPU time of a thread, measured from report to report.
//!
//! A halted vCPU costs time on the thread where it sleeps: to put it to sleep, for each interrupt
//! that reaches it there, to wake it, and to give it back. Each reading begins where the last one
//! ended, so what the thread did after its last report is in the next one, and nothing is lost
//! between two of them.

use baton_os::sys;

/// Measures the CPU time of the thread that made it; to be used there.
#[derive(Debug)]
pub(crate) struct CpuMeter {
    /// The thread's CPU time at the last reading, ns.
    read_at_ns: u64,
}

impl CpuMeter {
    /// Begins to measure now.
    pub(crate) fn start() -> Self {
        Self {
            read_at_ns: sys::thread_cpu_ns(),
        }
    }

    /// CPU time since the last call, or the start, ns.
    pub(crate) fn take_ns(&mut self) -> u64 {
        let now = sys::thread_cpu_ns();
        now.saturating_sub(std::mem::replace(&mut self.read_at_ns, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readings_of_a_thread_add_up_to_its_cpu_time() {
        std::thread::spawn(|| {
            let before = sys::thread_cpu_ns();
            let mut meter = CpuMeter::start();
            let between = sys::thread_cpu_ns();
            let mut sum = 0;
            for rounds in [10_000, 0, 100_000] {
                (0..rounds).for_each(|_| std::hint::spin_loop());
                sum += meter.take_ns();
            }
            // From somewhere between `before` and `between`, to the last reading.
            assert!(before + sum <= meter.read_at_ns && meter.read_at_ns <= between + sum);
            assert!(meter.read_at_ns <= sys::thread_cpu_ns());
        })
        .join()
        .expect("thread");
    }
}
