//! Hint pages: the host's side of [`baton_abi::hints`].
//!
//! Everything that a guest writes is copied once, checked, and believed only as far as it concerns the
//! guest itself. All accesses are atomic, on an address that was checked when the page was registered: no
//! lock, no allocation and no search on the path of a scheduling decision.

mod mapped_page;
mod pages;
mod snapshot;

pub use pages::{BadHintPage, HintPages};
pub use snapshot::{HintSnapshot, PublishedWait};
