//! The bare-metal guest that exercises the hint ABI.

/// The bare-metal guest: a static ELF that boots by the 64-bit Linux boot protocol, with up to 64 vCPUs
/// whose APIC ids are their indices.
///
/// Its command line consists of `key=value` words (durations such as `500ns`, `2us`):
///
/// | key | values, the default first |
/// |---|---|
/// | `workload` | `lock`, `throttled-holder`, `chain`, `deadlock`, `devices`, `queue`, `hog`, `pingpong`, `preempt`, `roam`, `carry`, `halt`, `idle`, `liar`, `stopped`, `doorbell-storm`, `boot`, `fault`, `triplefault`, or one of the attacks below |
/// | `lock` | `ticket`, `tas`, `mcs`, `mutex`. Waiters of a mutex sleep, whatever `wait` is |
/// | `tasks` | tasks of each vCPU with `lock`, `throttled-holder` and `queue`, and of even vCPUs with `preempt`: 1 (to 8) |
/// | `tick` | `off`: a task runs until it yields or sleeps. A time of at least `200us`: the local APIC's timer preempts the task after this time, and the next ready task of the vCPU runs, round robin. A task that holds a spinlock or waits for one is not preempted; a task that holds a mutex is |
/// | `hints` | `off`, `on`: publish to the host which vCPUs hold locks and which wait. `stock`: behave as an unmodified kernel, see below |
/// | `wait` | `spin`, `halt`: idle after `spin` (32768) iterations, as Linux's paravirtual spinlocks do |
/// | `hold`, `outside` | work under the lock and between two acquisitions (`2us`; `throttled-holder`: `2ms`, `1ms`; `chain`: `5ms`, `100us`; `preempt`: `hold` of odd vCPUs, `0ns`) |
/// | `seconds` | how long the workload lasts: `1`; may be a fraction; 0 for ever |
/// | `acquisitions` | the workload ends instead after so many acquisitions of each vCPU (rounds of `pingpong`, `roam` and `carry`, items of each task of `queue`); `preempt` ends only in this way (20) |
/// | `log` | `off`, `on`: report the times of the first critical sections of each vCPU, with `lock` and `throttled-holder` |
/// | `idle` | `auto` (the doorbell if the host has one), `hlt`, `pause` |
/// | `count`, `period`, `timer` | of `halt`: rounds (20), timer period (`1ms`), `oneshot` or `deadline` |
/// | `count`, `wait`, `period` | of `stopped`: how often the host has to report to a vCPU that it was stopped (20), unless `seconds` pass before; the vCPU waits by `spin`, or by `halt` for `period` again and again |
/// | `period` | of attacks (`1ms`), see below |
/// | `do` | of `devices`: a step, see below; any number of them |
/// | `seed` | of `liar` (1) |
/// | `cpus`, `tsc_khz` | the number of vCPUs and the TSC's frequency, on a machine without the test device |
/// | `console` | `ttyS0`: print on the first serial port |
///
/// `devices` drives virtio devices: vCPU 0 carries out the steps in order and prints the result of each.
/// Numbers are decimal or begin with `0x`:
///
/// | `do` | what it does |
/// |---|---|
/// | `device:N` | selects the device in slot N |
/// | `start`, `start:FEATURES` | starts the device with all features that it offers, or with these of them |
/// | `read:SECTOR:BYTES`, `write:SECTOR:BYTES:VALUE` | reads, or writes bytes of this value |
/// | `flush`, `serial` | of a disk |
/// | `discard:SECTOR:SECTORS:SEGMENTS` | discards so many consecutive segments |
/// | `restart-queue` | stops queue 0 and makes it ready again |
/// | `register:OFFSET` | reads a register |
/// | `reset-at-work:ROUNDS` | resets the disk in the middle of a read, overwrites the read's memory, and checks that the disk does not write there any more; so many times |
/// | `ram-disk` | prints the length and the sum of the bytes of the RAM disk |
///
/// Attacks try to take CPU time from other guests, for `seconds`:
///
/// | `workload` | what its vCPUs do |
/// |---|---|
/// | `escape-int` | halt for `period`; the instruction after the halt enters a handler, which computes to the end with interrupts off (KVM-PVM does not emulate `INT` and stops the guest) |
/// | `escape-fault` | the same, by a fault |
/// | `escape-iret` | halt for `period`; the instruction after the halt returns to CPL 3, where the vCPU computes until the interrupt that woke it is delivered |
/// | `device-hog` | keep one virtio device each busy with as many and as long requests as its queue can hold, and check every `period` whether they are done; disks must have 16 MiB (`hints=on`) |
/// | `idle-timers` | go idle for `period` again and again (`hints=on`) |
/// | `ipi-storm` | vCPU 0 interrupts all others without a pause; these halt |
/// | `wake-storm` | the same by the wake doorbell, one vCPU after the other |
/// | `apic-timers` | let the timers of their local APICs run at the shortest period, masked, and idle |
/// | `late-halts` | halt for `period` again and again |
/// | `serial-strings` | read (even indices) or write (odd indices) the first serial port with string instructions of 4 KiB |
///
/// # As an unmodified kernel
/// With `hints=stock` the guest does not look for the host's ports of the hint ABI: it registers no page, rings
/// no doorbell, and idles by `HLT` (unless by `idle=pause`). What a host can see of its locks is what it can
/// see of those of an x86 Linux kernel with `CONFIG_PREEMPT_COUNT`. The guest has the following with `off` and
/// `on`, too:
///
/// - The base of GS is the area of the vCPU that executes. A 32-bit word at a fixed offset there counts how
///   often preemption is disabled. The highest bit is no part of the count; it is always set, as in Linux
///   while the scheduler does not have to run. `incl %gs:offset(%rip)` and `decl %gs:offset(%rip)` change the
///   count, more than a hundred times each in the text. `MSR_LSTAR` points into the text.
/// - The count is not 0 while the vCPU holds a spinlock or waits for one, spins for a mutex or releases it, and
///   in the scheduler. It is 1 while the vCPU idles. It does not count mutexes that are held, nor interrupts.
/// - Wait loops contain `PAUSE`, and the work under a lock does not. (The waits of the workloads
///   themselves, such as that for the time outside the lock, contain it, too, with a count of 0.)
///
/// Unlike a kernel, the guest runs at CPL 3 and has its GS base there; `MSR_KERNEL_GS_BASE` is unused.
pub const GUEST_ELF: &[u8] = include_bytes!(env!("GUEST_ELF"));
