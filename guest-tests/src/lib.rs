//! What guests and Baton agree on, and the bare-metal guest that exercises it.

pub mod abi;
pub mod testdev;

/// The bare-metal guest: a static ELF to be booted by the 64-bit Linux boot protocol. What it does
/// stands on its command line; see `guest/config.rs` for the words.
pub const GUEST_ELF: &[u8] = include_bytes!(env!("GUEST_ELF"));
