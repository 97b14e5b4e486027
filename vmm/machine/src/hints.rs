//! Hint pages: the host's side of [`baton_abi::hints`].

mod pages;

pub use pages::{BadHintPage, HintSnapshot, Hints, Wait};
