//! The test device: ports by which a test guest reads what machine it has, reports results and ends.
//!
//! The device is not part of the hint ABI. All accesses are 32 bits wide, except those to the console. On a
//! machine without the device an `IN` returns all ones, by which the guest knows that the device is
//! missing.

/// `OUT` byte: a character for the debug console (as in Bochs and QEMU).
pub const PORT_CONSOLE: u16 = 0xe9;
/// `IN`: number of vCPUs of this guest.
pub const PORT_VCPUS: u16 = 0xba90;
/// `IN`: TSC frequency in kHz.
pub const PORT_TSC_KHZ: u16 = 0xba94;
/// `IN`: index of the vCPU that reads.
pub const PORT_INDEX: u16 = 0xba98;
/// `OUT`: key of the next result, one of `RESULT_*`.
pub const PORT_RESULT_KEY: u16 = 0xbaa0;
/// `OUT`: low half of a result's value.
pub const PORT_RESULT_LO: u16 = 0xbaa4;
/// `OUT`: high half of a result's value. The write stores the value under the key for this vCPU.
pub const PORT_RESULT_HI: u16 = 0xbaa8;
/// `OUT`: the guest is done; the value is its exit code, 0 for success.
pub const PORT_EXIT: u16 = 0xbaac;

/// Result: lock acquisitions of this vCPU.
pub const RESULT_ACQUISITIONS: u32 = 1;
/// Result: longest wait for a lock, nanoseconds.
pub const RESULT_WAIT_MAX_NS: u32 = 2;
/// Result: sum of all waits for a lock, nanoseconds.
pub const RESULT_WAIT_SUM_NS: u32 = 3;
/// Result: guest time that the workload took on this vCPU, nanoseconds.
pub const RESULT_ELAPSED_NS: u32 = 4;
/// Result: the counter kept under the lock, read at the end (vCPU 0 reports it).
pub const RESULT_COUNTER: u32 = 5;
/// Result: loop iterations of a workload that takes no lock.
pub const RESULT_ITERATIONS: u32 = 6;
/// Result: times this vCPU rang `DOORBELL_WAIT`.
pub const RESULT_WAIT_RINGS: u32 = 7;
/// Result: times this vCPU rang `DOORBELL_RELEASE`.
pub const RESULT_RELEASE_RINGS: u32 = 8;
/// Result: times this vCPU was passed over in a queue because it was not running.
pub const RESULT_SKIPPED: u32 = 9;
/// Result: guest-physical address of this vCPU's counted waits, a little-endian `u32` for each bucket
/// of [`crate::wait_buckets`]. When the address is written, the host reads the counts and stores each that
/// is not 0 as the result [`RESULT_WAIT_BUCKET`]. Written one by one, the counts would take several hundred
/// exits of each vCPU, which a benchmark would count as work.
pub const RESULT_WAITS_AT: u32 = 10;
/// Result: times that the guest's timer took a task off this vCPU for another one (`tick=`).
pub const RESULT_TASK_PREEMPTIONS: u32 = 11;
/// Results `RESULT_WAIT_BUCKET + k` (k < `BUCKETS`): waits in bucket k of [`crate::wait_buckets`]. A
/// count stays at 2^32 - 1.
pub const RESULT_WAIT_BUCKET: u32 = 0x100;
/// Results `RESULT_SECTIONS + 3n` and the two after it (n < [`SECTIONS`], with `log=on`): when this
/// vCPU requested a lock for the nth time, got the lock and began to release it, as TSC values.
pub const RESULT_SECTIONS: u32 = 0x1000;
/// How many critical sections a vCPU logs, from its first one on.
pub const SECTIONS: usize = 16;

/// Exit code: the workload ran and its self-checks held.
pub const EXIT_OK: u32 = 0;
/// Exit code: a self-check of the workload failed.
pub const EXIT_CHECK_FAILED: u32 = 1;
/// Exit code: the command line was not understood.
pub const EXIT_USAGE: u32 = 2;
/// Exit code: an unexpected fault or a panic in the guest.
pub const EXIT_FAULT: u32 = 3;
