//! Hints that the host infers, for a guest whose kernel publishes none.
//!
//! Linux counts in a per-CPU variable behind GS, the preempt count, how many sections its CPU is in that
//! must not be preempted: spinlocks, interrupts and a few more. Where that variable is can be read off the
//! kernel's own code, which increments and decrements it thousands of times by instructions of one form.
//! So neither symbols nor the user's help are needed. A vCPU whose count is not 0 holds something; if it is
//! also at a PAUSE instruction, it waits for something.
//!
//! All of this is a guess, and [`HintSnapshot::is_guess`](crate::hints::HintSnapshot::is_guess) marks it.
//! The guest controls everything that is read: its registers, its page tables, its code. Each address is
//! translated by KVM, checked to lie in the guest's RAM, and read once. So a guest that forges what is read
//! gets the hints that it could publish in a hint page as well.
//!
//! | file | idea |
//! |---|---|
//! | `scan.rs` | which variable a piece of code counts in |
//! | `scanner.rs` | the thread that scans a guest's kernel |
//! | `place.rs` | where the variable of one vCPU is in the host's memory |
//! | `pause.rs` | whether a vCPU is at a PAUSE instruction |
//! | `registers.rs` | what is read of a vCPU |
//! | `look_pace.rs` | how soon a vCPU is looked at |
//! | `provider.rs` | from these to the hints of a vCPU |

mod look_pace;
mod pause;
mod place;
mod provider;
mod registers;
mod scan;
mod scanner;

pub use look_pace::{Look, LookPace};
pub use provider::InferredHints;
pub(crate) use scan::Finding;
pub(crate) use scanner::{ScanRequest, ScannedGuest};
