//! What guests and Baton agree on, and the bare-metal guest that exercises it.

pub mod abi;
pub mod testdev;
