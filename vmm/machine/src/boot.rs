//! The state in which a kernel starts.

mod handover;
mod pvh;

pub use handover::{
    BootError, Handover, KERNEL_START, enter, entry_registers, hand_over, write_boot_structures,
};
