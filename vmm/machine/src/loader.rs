//! Puts a kernel into guest memory: a 64-bit ELF file (`vmlinux`, or any bare-metal one) or a Linux
//! `bzImage` (`vmlinuz`); and its initial RAM disk.
//!
//! A bzImage, and an ELF file without a PVH note, is entered by the 64-bit boot protocol, an ELF file
//! with such a note by PVH (`boot.rs`).
//!
//! | file | idea |
//! |---|---|
//! | `kernel.rs` | reading the file, and loading it by its format |
//! | `bzimage.rs`, `elf.rs` | the formats |
//! | `extent.rs` | whether the file has all that its headers describe |
//! | `initrd.rs` | the RAM disk |
//! | `initrd_room.rs` | where a RAM disk can be |
//! | `loaded.rs` | a kernel in memory |

mod bzimage;
mod elf;
mod error;
mod extent;
mod initrd;
mod initrd_room;
mod kernel;
mod loaded;

pub(crate) use bzimage::is_bzimage;
pub use error::LoadError;
pub use initrd::{Initrd, load_initrd};
pub use initrd_room::{InitrdError, InitrdSize};
pub use kernel::load;
pub(crate) use kernel::{load_image, read};
pub use loaded::{Entry, Loaded};
