//! What guests and Baton agree on, and the bare-metal guest that exercises it.

pub mod abi;
pub mod testdev;
pub mod wait_buckets;

/// The bare-metal guest: a static ELF to be booted by the 64-bit Linux boot protocol, with up to 64
/// vCPUs whose APIC ids are their indices.
///
/// What it does stands on its command line, `key=value` words (durations such as `500ns`, `2us`):
///
/// | key | values, the default first |
/// |---|---|
/// | `workload` | `lock`, `throttled-holder`, `chain`, `deadlock`, `queue`, `hog`, `pingpong`, `roam`, `carry`, `halt`, `idle`, `liar`, `doorbell-storm`, `boot`, `fault`, `triplefault` |
/// | `lock` | `ticket`, `tas`, `mcs`, `mutex`: waiters of the last sleep, whatever `wait` says |
/// | `tasks` | tasks of each vCPU with `lock` and `queue`, 1 (to 8); they do not preempt each other |
/// | `hints` | `off`, `on`: tell the host who holds and who waits |
/// | `wait` | `spin`, `halt`: idle after `spin` (32768) turns, as Linux's paravirt spinlocks do |
/// | `hold`, `outside` | work under the lock and between (`2us`; `throttled-holder`: `2ms`, `1ms`; `chain`: `5ms`, `100us`) |
/// | `seconds` | how long, may be a fraction; `1`; 0 for ever |
/// | `acquisitions` | ends after so many per vCPU (rounds of `pingpong`, `roam` and `carry`, items of each task of `queue`) instead |
/// | `log` | `off`, `on`: report when the first critical sections of each vCPU were, with `lock` and `throttled-holder` |
/// | `idle` | `auto` (the doorbell where there is one), `hlt`, `pause` |
/// | `count`, `period`, `timer` | of `halt`: rounds (20), timer period (`1ms`), `oneshot` or `deadline` |
/// | `seed` | of `liar` (1) |
/// | `cpus`, `tsc_khz` | where the test device does not tell |
/// | `console` | `ttyS0`: print on the first serial port |
pub const GUEST_ELF: &[u8] = include_bytes!(env!("GUEST_ELF"));
