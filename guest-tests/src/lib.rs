//! The bare-metal guest that exercises the hint ABI.

/// The bare-metal guest: a static ELF to be booted by the 64-bit Linux boot protocol, with up to 64
/// vCPUs whose APIC ids are their indices.
///
/// What it does stands on its command line, `key=value` words (durations such as `500ns`, `2us`):
///
/// | key | values, the default first |
/// |---|---|
/// | `workload` | `lock`, `throttled-holder`, `chain`, `deadlock`, `devices`, `queue`, `hog`, `pingpong`, `preempt`, `roam`, `carry`, `halt`, `idle`, `liar`, `stopped`, `doorbell-storm`, `boot`, `fault`, `triplefault`, or one of the attacks below |
/// | `lock` | `ticket`, `tas`, `mcs`, `mutex`: waiters of the last sleep, whatever `wait` says |
/// | `tasks` | tasks of each vCPU with `lock`, `throttled-holder` and `queue`, of even ones with `preempt`, 1 (to 8) |
/// | `tick` | `off`: a task runs until it yields or sleeps; or a time, at least `200us`, after which the local APIC's timer preempts it and the next ready one of the vCPU runs, round robin. Not while it holds a spinlock or waits for one; with a mutex it may be |
/// | `hints` | `off`, `on`: tell the host who holds and who waits |
/// | `wait` | `spin`, `halt`: idle after `spin` (32768) turns, as Linux's paravirt spinlocks do |
/// | `hold`, `outside` | work under the lock and between (`2us`; `throttled-holder`: `2ms`, `1ms`; `chain`: `5ms`, `100us`; `preempt`: `hold` of odd vCPUs, `0ns`) |
/// | `seconds` | how long, may be a fraction; `1`; 0 for ever |
/// | `acquisitions` | ends after so many per vCPU (rounds of `pingpong`, `roam` and `carry`, items of each task of `queue`) instead; `preempt` has no other end (20) |
/// | `log` | `off`, `on`: report when the first critical sections of each vCPU were, with `lock` and `throttled-holder` |
/// | `idle` | `auto` (the doorbell where there is one), `hlt`, `pause` |
/// | `count`, `period`, `timer` | of `halt`: rounds (20), timer period (`1ms`), `oneshot` or `deadline` |
/// | `count`, `wait`, `period` | of `stopped`: the host has to say so often that a vCPU was stopped (20), or `seconds` pass; `spin`, or `halt` for `period` again and again |
/// | `period` | of attacks, `1ms`: see there |
/// | `do` | of `devices`: a step, see there; any number of them |
/// | `seed` | of `liar` (1) |
/// | `cpus`, `tsc_khz` | where the test device does not tell |
/// | `console` | `ttyS0`: print on the first serial port |
///
/// `devices` drives virtio devices: vCPU 0 carries out its steps in order and prints what came of each.
/// Numbers are decimal or begin with `0x`:
///
/// | `do` | what it does |
/// |---|---|
/// | `device:N` | turns to the device in slot N |
/// | `start`, `start:FEATURES` | starts it with all features on offer, or these of them |
/// | `read:SECTOR:BYTES`, `write:SECTOR:BYTES:VALUE` | reads, or writes bytes of this value |
/// | `flush`, `serial` | of a disk |
/// | `discard:SECTOR:SECTORS:SEGMENTS` | with so many segments, one behind the other |
/// | `restart-queue` | takes queue 0 back and lets the device have it anew |
/// | `register:OFFSET` | reads a register |
/// | `reset-at-work:ROUNDS` | so many times: resets the disk in the middle of a read, fills the read's memory, and looks whether it stays so |
/// | `ram-disk` | tells the length and the sum of the bytes of the RAM disk |
///
/// Attacks try to take CPU time from other guests, for `seconds`:
///
/// | `workload` | what its vCPUs do |
/// |---|---|
/// | `escape-int` | halt for `period`; the instruction after the halt enters a handler, which computes to the end with interrupts off (KVM-PVM stops the guest: it does not emulate `INT`) |
/// | `escape-fault` | the same by a fault |
/// | `escape-iret` | halt for `period`; the instruction after the halt returns to CPL 3, where the vCPU computes until the interrupt that woke it is delivered |
/// | `device-hog` | keep a virtio device each busy with as many and as long requests as its queue takes, and look every `period` whether they are done; disks must have 16 MiB (`hints=on`) |
/// | `idle-timers` | go idle for `period` again and again (`hints=on`) |
/// | `ipi-storm` | vCPU 0 interrupts all others without end, which halt |
/// | `wake-storm` | the same with the wake doorbell, one vCPU after the other |
/// | `apic-timers` | let the timers of their local APICs run at the shortest period, masked, and idle |
/// | `late-halts` | halt for `period` again and again |
/// | `serial-strings` | of even number read, of odd number write the first serial port with string instructions of 4 KiB |
pub const GUEST_ELF: &[u8] = include_bytes!(env!("GUEST_ELF"));
