//! The paravirt hint ABI between a guest and Baton, version 1.
//!
//! One 4 KiB page per vCPU in guest memory, found and registered through a fixed block of I/O
//! ports. All fields are little-endian. The first cache line is written by the guest's vCPU alone,
//! the second by the host alone, so a holder's lock path never shares a line with the host's
//! answers that its waiters poll.
//!
//! `include/baton_hints.h` says the same to C; a test holds the two against each other.
//!
//! # Trust
//! The host copies a record before it looks at it and believes none of it: whatever a guest writes
//! here, it can only change which of *its own* vCPUs runs on *its own* budgets.

/// First port of the hint block. All accesses are 32 bits wide.
pub const PORT_MAGIC: u16 = 0xba70;
/// `IN`: [`VERSION`] in the low 16 bits, `FEATURE_*` bits in the high 16.
pub const PORT_FEATURES: u16 = 0xba74;
/// `OUT`: guest page frame number (address >> 12) of this vCPU's hint page; 0 takes it back.
/// `IN`: 1 if this vCPU has a registered page, else 0.
pub const PORT_HINT_PAGE: u16 = 0xba78;
/// `OUT`: a doorbell, see the `DOORBELL_*` values.
pub const PORT_DOORBELL: u16 = 0xba7c;

/// CPUID leaf under which a guest that uses CPUID finds Baton: EAX is the last leaf of the block,
/// EBX, ECX and EDX are [`CPUID_SIGNATURE`]. The next leaf has [`VERSION`] in EAX, `FEATURE_*` bits in
/// EBX, [`PORT_MAGIC`] in ECX and the index of the vCPU in EDX.
pub const CPUID_BASE: u32 = 0x4000_0100;
/// "BatonBaton", and two zeros.
pub const CPUID_SIGNATURE: [u32; 3] = [0x6f74_6142, 0x7461_426e, 0x0000_6e6f];

/// What `IN` from [`PORT_MAGIC`] gives under Baton ("Batn").
pub const MAGIC: u32 = 0x6e74_6142;
/// Version of this ABI.
pub const VERSION: u32 = 1;

/// The host understands `block_wait` records at idle.
pub const FEATURE_BLOCK_WAIT: u32 = 1 << 0;
/// The host keeps `running` exact: only a vCPU on a host CPU has it set.
pub const FEATURE_RUNNING: u32 = 1 << 1;
/// The host runs a holder on its waiters' budgets.
pub const FEATURE_PROXY: u32 = 1 << 2;
/// The host may defer the preemption of a holder.
pub const FEATURE_DEFER: u32 = 1 << 3;
/// The host understands [`WAIT_IPI`] records.
pub const FEATURE_IPI_WAIT: u32 = 1 << 4;

/// Doorbell: the record says `spin_wait`, and the vCPU it names is not running.
pub const DOORBELL_WAIT: u32 = 1;
/// Doorbell: I released what [`HostHints::ring`] asked about. Argument: index of the vCPU that the
/// lock went to, plus one; 0 when it went to nobody or the releaser does not know. Without being
/// asked: if the record says [`WAIT_NONE`] and its `lock` is not 0, that lock has been handed to the
/// vCPU of the argument, and those who sleep for it now wait for that one.
pub const DOORBELL_RELEASE: u32 = 2;
/// Doorbell: nothing to run until a `DOORBELL_WAKE` names this vCPU or
/// [`GuestHints::idle_until_tsc`] passes. A wake that came first is remembered and makes this
/// return at once, so check-then-idle has no lost wake-up. May also return without cause.
pub const DOORBELL_IDLE: u32 = 3;
/// Doorbell: wake the vCPU whose index is the argument. If that sleeps with a [`WAIT_BLOCK`] record
/// that names the ringing vCPU as the holder, this also says that the lock of the record has been
/// handed to it, or that it is its turn to take it, and those who sleep for it wait for that vCPU
/// now: no `DOORBELL_RELEASE` is needed, and the host takes [`HostHints::ring`] back.
pub const DOORBELL_WAKE: u32 = 4;

/// Bits of a doorbell value that hold the reason; the argument stands above them.
pub const DOORBELL_REASON_BITS: u32 = 8;

/// A doorbell value from its reason and argument.
#[must_use]
pub const fn doorbell(reason: u32, argument: u32) -> u32 {
    reason | (argument << DOORBELL_REASON_BITS)
}

/// [`GuestHints::wait_kind`]: this vCPU waits for nobody.
pub const WAIT_NONE: u32 = 0;
/// This vCPU spins until the holder lets go of the lock (or moves up in its queue).
pub const WAIT_SPIN: u32 = 1;
/// A task of this vCPU sleeps on a mutex and the vCPU has nothing else to run. The record counts
/// while the vCPU idles. `holder` is the vCPU on which the mutex's owner lives, or the waiter that has
/// its turn before, whether it runs or not; `holder_gen` is not looked at, for the sleeper is woken
/// when its wait is over.
///
/// A sibling that takes the sleeper over may store [`WAIT_NONE`] into `wait_kind`: the one field of
/// the guest's half that another vCPU writes.
pub const WAIT_BLOCK: u32 = 2;
/// This vCPU spins until the holder has handled an interrupt that it was sent. `lock` names the
/// request; the holder counts handling it as a release.
pub const WAIT_IPI: u32 = 3;

/// [`GuestHints::holder`]: the waiter does not know whom it waits for.
pub const HOLDER_UNKNOWN: u32 = u32::MAX;

/// Bits of [`GuestHints::held`] that count the locks held or being taken now.
pub const HELD_DEPTH_BITS: u32 = 8;
/// Added to `held` before a lock is taken.
pub const HELD_ACQUIRE: u32 = 1;
/// Added (wrapping) to `held` when a lock is released: one less held, one more release counted.
pub const HELD_RELEASE: u32 = (1 << HELD_DEPTH_BITS) - 1;

/// [`HostHints::ring`]: a waiter's budget carries this vCPU; ring `DOORBELL_RELEASE` after
/// releasing [`HostHints::donated_lock`].
pub const RING_DONATED: u32 = 1 << 0;
/// [`HostHints::ring`]: this vCPU is out of time and runs on because it holds a lock; ring
/// `DOORBELL_RELEASE` when the last one is released.
pub const RING_DEFER: u32 = 1 << 1;

/// The half of the hint page that the guest's vCPU writes.
///
/// `seq` to `holder_gen` form one record under a sequence count: odd while the guest changes it.
/// A vCPU is stopped when the host reads its record for a decision, so an odd count only says that
/// it was stopped between the stores; the host then ignores the record.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct GuestHints {
    /// Sequence count of the record; odd while it changes.
    pub seq: u32,
    /// One of `WAIT_*`.
    pub wait_kind: u32,
    /// The lock waited for: any number that names it within this guest (its address).
    pub lock: u64,
    /// Index of the vCPU that must run before this one can go on: the lock's holder, or for a
    /// queue lock the first vCPU ahead in the queue that is not running.
    pub holder: u32,
    /// The holder's release count (`held` >> [`HELD_DEPTH_BITS`]) when the waiter looked. If the
    /// holder's count has moved on, the record is stale.
    pub holder_gen: u32,
    /// Locks held or being taken now (low [`HELD_DEPTH_BITS`] bits) and releases so far (above them,
    /// wrapping). Not part of the record: one plain store each by lock and unlock. A lock may count
    /// from before the first try to take it on, so that a waiter which is about to have it is not
    /// stopped either. Only locks count whose holder does not sleep, that is, spinlocks: the host
    /// answers a held lock with a grace of microseconds, and a mutex can be held for long, by a task
    /// that does not even run. Releases of a mutex that waiters spin for count.
    pub held: u32,
    /// Reserved, zero.
    pub reserved0: u32,
    /// TSC value at which an idle vCPU wants to wake by itself; 0 for never.
    pub idle_until_tsc: u64,
    /// Reserved, zero.
    pub reserved1: [u64; 3],
}

/// The half of the hint page that the host writes. Changed only while the vCPU is outside the
/// guest, except `running`, which other vCPUs poll.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct HostHints {
    /// 1 while this vCPU is on a host CPU, else 0.
    pub running: u32,
    /// `RING_*` bits.
    pub ring: u32,
    /// The lock that the donor waits for; meaningful with [`RING_DONATED`].
    pub donated_lock: u64,
    /// Time runnable but not running since the page was registered, nanoseconds.
    pub steal_ns: u64,
    /// How often this vCPU was taken off a host CPU against its will.
    pub preemptions: u32,
    /// Index of the vCPU whose budget carries this one; meaningful with [`RING_DONATED`].
    pub donor: u32,
    /// Reserved, zero.
    pub reserved: [u64; 4],
}

/// The hint page; the rest of its 4 KiB is reserved, zero.
#[repr(C)]
#[derive(Debug, Default)]
pub struct HintPage {
    /// Guest to host.
    pub guest: GuestHints,
    /// Host to guest.
    pub host: HostHints,
}
