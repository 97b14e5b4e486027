//! The state in which a kernel starts: that of the Linux/x86 64-bit boot protocol, or of PVH
//! (`pvh.rs`).
//!
//! Source: `Documentation/arch/x86/boot.rst` of Linux, "64-bit Boot Protocol": long mode with
//! paging, identity-mapped; `__BOOT_CS` (0x10) and `__BOOT_DS` (0x18) flat; interrupts off; RSI
//! points to the `boot_params` page.
//!
//! | file | idea |
//! |---|---|
//! | `protocol.rs` | handing the machine over, by either protocol |
//! | `boot_params.rs`, `pvh.rs` | the structure of each protocol |
//! | `handover.rs`, `memory_map.rs` | what the structures contain |
//! | `tables.rs` | page tables and segment descriptors |
//! | `registers.rs` | the registers of the vCPU that starts the kernel |
//! | `addresses.rs` | where the structures are |

mod addresses;
mod boot_params;
mod error;
mod handover;
mod memory_map;
mod protocol;
mod pvh;
mod registers;
mod tables;

pub use error::BootError;
pub use handover::Handover;
pub use protocol::hand_over;
pub use registers::{enter, entry_registers};
pub use tables::write_boot_structures;
