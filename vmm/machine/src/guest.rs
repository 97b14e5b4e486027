//! A guest: a KVM virtual machine with its memory, devices and how it ended.

mod create;
mod record;

pub use create::{Guest, GuestEnd, GuestError, GuestWiring};
pub use record::GuestRecord;
