//! Puts a kernel into guest memory.

mod extent;
mod initrd;
mod kernel;

pub use initrd::{Initrd, InitrdError, Size, load_initrd};
pub use kernel::{Entry, LoadError, Loaded, load};
