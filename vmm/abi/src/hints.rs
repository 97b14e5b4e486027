//! The paravirt hint ABI between a guest and Baton, version 1: a specification for authors of guests.
//!
//! A vCPU publishes which other vCPU of its guest it waits for, and how many locks it holds. Baton uses
//! that to run the vCPU that others wait for, and to defer the preemption of a vCPU that holds a lock.
//!
//! # Terms
//! *Guest* is the software in the virtual machine, *host* is Baton. The *waiter* is the vCPU whose record
//! names another one, the *holder* is the vCPU that it names. *Ringing* is an `OUT` to [`PORT_DOORBELL`].
//!
//! # Finding the host
//! By CPUID ([`CPUID_BASE`]), or by an `IN` from [`PORT_MAGIC`] that returns [`MAGIC`]. A guest uses a
//! feature only if its `FEATURE_*` bit is set, and nothing of this ABI if [`VERSION`] differs.
//!
//! # Ports
//! All accesses are 32 bits wide. An `OUT` of another width or with a value that makes no sense has no
//! effect. An `IN` of another width returns all ones.
//!
//! # The hint page
//! Each vCPU registers a page of guest memory of its own ([`PORT_HINT_PAGE`], [`HintPage`]). All fields
//! are little-endian. The vCPU alone writes the first cache line, the host alone writes the second. So the
//! path on which a holder takes and releases a lock shares no line with the answers of the host that its
//! waiters poll. Reserved fields and bits are zero: the guest leaves them so, and ignores them in the half
//! of the host.
//!
//! # Trust
//! The host copies a record before it examines the record, and believes none of it. Whatever a guest
//! writes here can only change which of *its own* vCPUs runs on *its own* budgets.
//!
//! `include/baton_hints.h` is the same for C. A test compares the two.

/// `IN`: [`MAGIC`] under Baton. First port of the hint block.
pub const PORT_MAGIC: u16 = 0xba70;
/// `IN`: [`VERSION`] in the low 16 bits, `FEATURE_*` bits in the high 16.
pub const PORT_FEATURES: u16 = 0xba74;
/// `OUT`: registers the hint page of the vCPU that writes. The value is the number of the page's frame
/// (guest-physical address >> 12); 0 ends the registration. A page outside the guest's RAM is refused, and
/// the page registered before stays. Registration sets `ring`, `steal_ns` and `preemptions` to 0.
/// `IN`: 1 if this vCPU has a registered page, else 0.
pub const PORT_HINT_PAGE: u16 = 0xba78;
/// `OUT`: a doorbell, one of the `DOORBELL_*` reasons with its argument ([`doorbell`]).
pub const PORT_DOORBELL: u16 = 0xba7c;

/// First CPUID leaf of Baton. EAX is the last leaf of the block, EBX, ECX and EDX are [`CPUID_SIGNATURE`].
/// The next leaf has [`VERSION`] in EAX, `FEATURE_*` bits in EBX, [`PORT_MAGIC`] in ECX and the index of
/// the vCPU in EDX.
pub const CPUID_BASE: u32 = 0x4000_0100;
/// "BatonBaton", and two zeros.
pub const CPUID_SIGNATURE: [u32; 3] = [0x6f74_6142, 0x7461_426e, 0x0000_6e6f];

/// The value that an `IN` from [`PORT_MAGIC`] returns under Baton ("Batn").
pub const MAGIC: u32 = 0x6e74_6142;
/// Version of this ABI.
pub const VERSION: u32 = 1;

/// The host uses [`WAIT_BLOCK`] records of idle vCPUs.
pub const FEATURE_BLOCK_WAIT: u32 = 1 << 0;
/// The host keeps [`HostHints::running`] exact: only a vCPU on a host CPU has it set.
pub const FEATURE_RUNNING: u32 = 1 << 1;
/// The host runs a holder on the budgets of its waiters.
pub const FEATURE_PROXY: u32 = 1 << 2;
/// The host may defer the preemption of a holder.
pub const FEATURE_DEFER: u32 = 1 << 3;
/// The host uses [`WAIT_IPI`] records.
pub const FEATURE_IPI_WAIT: u32 = 1 << 4;

/// Doorbell: the ringing vCPU has a [`WAIT_SPIN`] or [`WAIT_IPI`] record, and the holder in it does not
/// run. No argument. The `OUT` completes when the host has run the holder, or has a reason not to.
pub const DOORBELL_WAIT: u32 = 1;
/// Doorbell: the ringing vCPU has released the lock for which [`HostHints::ring`] requested it. Argument:
/// index of the vCPU that got the lock, plus one; 0 if no vCPU got the lock, or the releaser does not know
/// which.
///
/// Rung without a request, while the record has [`WAIT_NONE`] and a `lock` other than 0: that lock has been
/// handed to the vCPU of the argument, and the vCPUs that sleep for the lock wait for that vCPU from now
/// on.
pub const DOORBELL_RELEASE: u32 = 2;
/// Doorbell: the ringing vCPU has nothing to run until a [`DOORBELL_WAKE`] names it, or
/// [`GuestHints::idle_until_tsc`] passes. No argument. The host remembers a wake that came before the
/// doorbell, and the `OUT` completes at once, so a guest that checks for work and then rings loses no
/// wake-up. The `OUT` may also complete without a cause.
pub const DOORBELL_IDLE: u32 = 3;
/// Doorbell: wake a vCPU. Argument: its index.
///
/// If the vCPU of the argument sleeps with a [`WAIT_BLOCK`] record that names the ringing vCPU as the
/// holder, the doorbell also means that the lock of the record has been handed to the sleeper, or that it
/// is the sleeper's turn to take the lock. The other vCPUs that sleep for the lock wait for that vCPU from
/// now on. No [`DOORBELL_RELEASE`] is needed, and the host withdraws the request in [`HostHints::ring`].
pub const DOORBELL_WAKE: u32 = 4;

/// Number of low bits of a doorbell value that hold the reason. The argument is in the bits above.
pub const DOORBELL_REASON_BITS: u32 = 8;

/// The doorbell value with this reason (one of `DOORBELL_*`) and argument.
#[must_use]
pub const fn doorbell(reason: u32, argument: u32) -> u32 {
    reason | (argument << DOORBELL_REASON_BITS)
}

/// [`GuestHints::wait_kind`]: this vCPU does not wait for another one.
pub const WAIT_NONE: u32 = 0;
/// [`GuestHints::wait_kind`]: this vCPU spins until the holder releases the lock or, in a queue lock, moves
/// up.
pub const WAIT_SPIN: u32 = 1;
/// [`GuestHints::wait_kind`]: a task of this vCPU sleeps on a mutex, and the vCPU has nothing else to run.
/// The record is in force while the vCPU idles. `holder` is the vCPU on which the owner of the mutex is
/// scheduled, or the waiter whose turn comes before, whether it runs or not. The host does not use
/// `holder_gen`, because the sleeper is woken when its wait is over.
///
/// Another vCPU that takes the sleeping task over may store [`WAIT_NONE`] into `wait_kind`. No other field
/// of the guest's half is written by another vCPU.
pub const WAIT_BLOCK: u32 = 2;
/// [`GuestHints::wait_kind`]: this vCPU spins until the holder has handled an interrupt that was sent to
/// the holder. `lock` names the request. The holder counts the handling as a release.
pub const WAIT_IPI: u32 = 3;

/// [`GuestHints::holder`]: the waiter does not know for which vCPU it waits.
pub const HOLDER_UNKNOWN: u32 = u32::MAX;

/// Number of low bits of [`GuestHints::held`] that count the locks held or being taken now.
pub const HELD_DEPTH_BITS: u32 = 8;
/// Added to [`GuestHints::held`] before a lock is taken.
pub const HELD_ACQUIRE: u32 = 1;
/// Added (wrapping) to [`GuestHints::held`] when a lock is released: one less is held, and one more release
/// is counted.
pub const HELD_RELEASE: u32 = (1 << HELD_DEPTH_BITS) - 1;

/// [`HostHints::ring`]: the budget of a waiter carries this vCPU. The vCPU rings [`DOORBELL_RELEASE`] after
/// it has released [`HostHints::donated_lock`].
pub const RING_DONATED: u32 = 1 << 0;
/// [`HostHints::ring`]: this vCPU has used up its time, and runs on because it holds a lock. The vCPU rings
/// [`DOORBELL_RELEASE`] when it has released its last lock.
pub const RING_DEFER: u32 = 1 << 1;

/// The half of the hint page that the guest's vCPU writes.
///
/// `seq` to `holder_gen` are the *record*, under a sequence count. To change the record, the vCPU makes
/// `seq` odd, stores the other fields, and makes `seq` even, in program order. No memory barriers are
/// needed: the vCPU is stopped when the host reads its record for a decision. If the vCPU was stopped
/// between these stores, `seq` is odd, and the host ignores the record.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct GuestHints {
    /// Sequence count of the record, odd while the record changes.
    pub seq: u32,
    /// One of `WAIT_*`.
    pub wait_kind: u32,
    /// The lock for which this vCPU waits: any number that names the lock within the guest, such as its
    /// address. For [`WAIT_NONE`] see [`DOORBELL_RELEASE`].
    pub lock: u64,
    /// Index of the vCPU that must run before this one can go on: the holder of the lock, or for a queue
    /// lock the first vCPU ahead in the queue that does not run. Or [`HOLDER_UNKNOWN`].
    pub holder: u32,
    /// The release count of `holder` ([`GuestHints::held`] >> [`HELD_DEPTH_BITS`] in its page) when this
    /// vCPU found that `holder` has the lock. When the holder's count differs, the record is stale.
    pub holder_gen: u32,
    /// Locks held or being taken now (low [`HELD_DEPTH_BITS`] bits) and releases so far (the bits above,
    /// wrapping). Not part of the record: one plain store when a lock is taken and one when it is released
    /// are enough.
    ///
    /// A vCPU may count a lock from before its first attempt to take the lock, so that a waiter that is
    /// about to get the lock is not preempted either. Only spinlocks count as held: the host defers the
    /// preemption of a holder by microseconds, and a mutex may be held for long, by a task that does not
    /// even run. The releases of a mutex for which waiters spin count as releases.
    pub held: u32,
    /// Reserved, zero.
    pub reserved0: u32,
    /// TSC value at which the vCPU wakes from [`DOORBELL_IDLE`] without a doorbell; 0 for never.
    pub idle_until_tsc: u64,
    /// Reserved, zero.
    pub reserved1: [u64; 3],
}

/// The half of the hint page that the host writes. Every field but `running`, which other vCPUs poll,
/// changes only while the vCPU is outside the guest.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct HostHints {
    /// 1 while this vCPU is on a host CPU, else 0.
    pub running: u32,
    /// `RING_*` bits: for what the host requests a [`DOORBELL_RELEASE`]; 0 for nothing.
    pub ring: u32,
    /// The lock for which the donor waits, as in the donor's [`GuestHints::lock`]. Valid with
    /// [`RING_DONATED`].
    pub donated_lock: u64,
    /// Time for which this vCPU was runnable and did not run since the page was registered, nanoseconds.
    pub steal_ns: u64,
    /// How many times this vCPU was preempted since the page was registered.
    pub preemptions: u32,
    /// Index of the vCPU whose budget carries this one, the donor. Valid with [`RING_DONATED`].
    pub donor: u32,
    /// Reserved, zero.
    pub reserved: [u64; 4],
}

/// The hint page. The rest of its 4 KiB is reserved, zero.
#[repr(C)]
#[derive(Debug, Default)]
pub struct HintPage {
    /// Written by the guest's vCPU.
    pub guest: GuestHints,
    /// Written by the host.
    pub host: HostHints,
}
