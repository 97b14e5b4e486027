//! What the file of a kernel shows without running it.
//!
//! Two questions are answered: what Baton would do with a kernel (`baton check --kernel`), and where a kernel
//! keeps its preempt count by its symbols (`--symbols`). The files come from the user, who may have them from
//! anywhere. So no field of a file is trusted, and all sizes have bounds.
//!
//! | file | idea |
//! |---|---|
//! | `facts.rs` | what is known of a kernel by its file |
//! | `payload.rs` | the compressed kernel in a bzImage |
//! | `compression.rs` | formats of compression |
//! | `elf.rs` | the ELF file of a kernel |
//! | `embedded_config.rs` | the configuration in a kernel |
//! | `symbols.rs` | which symbols name the preempt count |
//! | `sample.rs` | a small kernel for tests |
//! | `symbol_file.rs` | a file with the symbols of a kernel |

mod compression;
mod elf;
mod embedded_config;
mod facts;
mod payload;
#[cfg(test)]
mod sample;
mod symbol_file;
mod symbols;

pub use compression::{Compression, DecompressError};
pub use facts::{ContentsError, CountFact, ExamineError, ImageFormat, KernelContents, KernelFacts};
pub use payload::PayloadError;
pub use symbol_file::{SymbolsError, read_symbols};
