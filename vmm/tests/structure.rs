//! The structure of the project: files of a crate without circles, crates that depend in one direction, and
//! words that are no longer used.

#[path = "structure/crates.rs"]
mod crates;
#[path = "structure/lexer.rs"]
mod lexer;
#[path = "structure/modules.rs"]
mod modules;
#[path = "structure/words.rs"]
mod words;

use std::path::PathBuf;

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
