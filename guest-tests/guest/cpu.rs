//! The block of memory that each vCPU owns: descriptor tables, counters, stacks.

use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::stats::Stats;

/// The largest number of vCPUs.
pub const MAX_CPUS: usize = 64;
/// Size and alignment of a block: code at either privilege level finds its own by masking RSP. The base
/// of GS is the block, too, as that of Linux is the per-CPU area.
pub const BLOCK_SIZE: usize = 64 << 10;
/// Offset in the block at which the CPL-0 stack begins (growing down).
pub const RING0_TOP: usize = 8 << 10;
/// Offset in the block at which the CPL-3 stack begins (growing down); above it are the stacks of
/// its tasks.
pub const RING3_TOP: usize = 32 << 10;
/// The largest number of tasks of a vCPU.
pub const MAX_TASKS: usize = 8;
/// Size of a task's stack. Workloads print from the vCPU's own stack, not from these.
const TASK_STACK: usize = 4 << 10;
/// Offset of the TSS's I/O bitmap, all zero: every port is open to CPL 3. IOPL 3 has the same effect, but
/// a hypervisor that keeps the guest at CPL 3 in hardware may not let the guest set it.
pub const IO_BITMAP: usize = RING0_TOP;
/// Bytes in the bitmap. One more, all ones, must follow.
pub const IO_BITMAP_SIZE: usize = 8 << 10;

/// The state of a vCPU.
#[repr(C)]
pub struct Cpu {
    gdt: UnsafeCell<[u64; 10]>,
    tss: UnsafeCell<[u8; 104]>,
    /// Its index, below the number of vCPUs.
    index: AtomicU32,
    /// 1 once the vCPU runs Rust code.
    pub online: AtomicU32,
    /// How the vCPU sleeps (`idle.rs`): not 0 from before its decision to idle until a waker clears the
    /// word or it wakes by itself.
    pub asleep: AtomicU32,
    /// Timer interrupts taken.
    pub ticks: AtomicU32,
    /// Wake-up interrupts taken (CPL-0 handler, can end a halt).
    pub wakes: AtomicU32,
    /// Interrupts taken by the CPL-3 handler.
    pub pokes: AtomicU32,
    /// How often preemption is disabled (`preempt_count.rs`), which `entry.rs` sets up.
    pub preempt_count: AtomicU32,
    /// State of the timer that preempts tasks; `preempt.rs` describes this field and the next one.
    pub tick: AtomicU32,
    /// RIP of the task that the tick interrupted.
    tick_return: AtomicU64,
    /// What the workload measures.
    pub stats: Stats,
}

// SAFETY: the descriptor tables are written only by their own vCPU before it runs Rust code; all
// other fields are atomics.
unsafe impl Sync for Cpu {}

/// A [`Cpu`] and the stacks of its vCPU.
#[repr(C, align(65536))]
pub struct Block {
    cpu: Cpu,
    stacks: UnsafeCell<[u8; BLOCK_SIZE - size_of::<Cpu>()]>,
}

const _: () = assert!(size_of::<Block>() == BLOCK_SIZE && align_of::<Block>() == BLOCK_SIZE);
const _: () = assert!(
    size_of::<Cpu>() <= RING0_TOP - 2048,
    "too little CPL-0 stack"
);
const _: () = assert!(RING3_TOP + MAX_TASKS * TASK_STACK <= BLOCK_SIZE);

// SAFETY: `cpu` is Sync, and each stack is used by its own vCPU alone.
unsafe impl Sync for Block {}

/// One block for each vCPU, by its index.
pub static BLOCKS: [Block; MAX_CPUS] = [const { Block::new() }; MAX_CPUS];

impl Block {
    const fn new() -> Self {
        Self {
            cpu: Cpu {
                gdt: UnsafeCell::new([0; 10]),
                tss: UnsafeCell::new([0; 104]),
                index: AtomicU32::new(0),
                online: AtomicU32::new(0),
                asleep: AtomicU32::new(0),
                ticks: AtomicU32::new(0),
                wakes: AtomicU32::new(0),
                pokes: AtomicU32::new(0),
                preempt_count: AtomicU32::new(0),
                tick: AtomicU32::new(0),
                tick_return: AtomicU64::new(0),
                stats: Stats::new(),
            },
            stacks: UnsafeCell::new([0; BLOCK_SIZE - size_of::<Cpu>()]),
        }
    }
}

impl Cpu {
    pub const GDT_OFFSET: usize = offset_of!(Cpu, gdt);
    pub const TSS_OFFSET: usize = offset_of!(Cpu, tss);
    /// Offset of the I/O bitmap in the TSS.
    pub const IO_BITMAP_BASE: usize = IO_BITMAP - Self::TSS_OFFSET;
    /// Offset in the TSS of its last byte, the one after the I/O bitmap.
    pub const TSS_LIMIT: usize = Self::IO_BITMAP_BASE + IO_BITMAP_SIZE;
    pub const ASLEEP_OFFSET: usize = offset_of!(Cpu, asleep);
    pub const ITERATIONS_OFFSET: usize = offset_of!(Cpu, stats) + offset_of!(Stats, iterations);
    pub const TICKS_OFFSET: usize = offset_of!(Cpu, ticks);
    pub const WAKES_OFFSET: usize = offset_of!(Cpu, wakes);
    pub const POKES_OFFSET: usize = offset_of!(Cpu, pokes);
    pub const PREEMPT_COUNT_OFFSET: usize = offset_of!(Cpu, preempt_count);
    pub const TICK_OFFSET: usize = offset_of!(Cpu, tick);
    pub const TICK_RETURN_OFFSET: usize = offset_of!(Cpu, tick_return);

    /// The vCPU that executes this call.
    pub fn current() -> &'static Self {
        let rsp: usize;
        // SAFETY: only reads a register.
        unsafe { core::arch::asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack)) };
        // SAFETY: every stack of the guest lies in a `Block`, whose alignment is its size and
        // whose first field is the `Cpu`.
        unsafe { &*((rsp & !(BLOCK_SIZE - 1)) as *const Self) }
    }

    /// The vCPU of this index, which must be below [`MAX_CPUS`].
    pub fn get(index: u32) -> &'static Self {
        &BLOCKS[index as usize].cpu
    }

    /// Where the stack of this vCPU's task `number` begins (growing down). `number` must be below
    /// [`MAX_TASKS`].
    pub fn task_stack(&self, number: usize) -> usize {
        let block = &raw const BLOCKS[self.index() as usize] as usize;
        block + RING3_TOP + (number + 1) * TASK_STACK
    }

    #[inline(always)]
    pub fn index(&self) -> u32 {
        self.index.load(Relaxed)
    }

    /// Sets the index; called once, at the start of the vCPU.
    pub fn set_index(&self, index: u32) {
        self.index.store(index, Relaxed);
    }
}
