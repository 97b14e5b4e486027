//! Hints that the host infers, for a guest whose kernel publishes none.
//!
//! There are two layers, and the first does without the second:
//!
//! - Of *any guest*, a vCPU that is in a loop of its kernel with interrupts off waits for another vCPU. Nothing
//!   is inferred about what a vCPU holds.
//! - *Linux* counts in a per-CPU variable behind GS, the preempt count, how many sections its CPU is in that
//!   must not be preempted: spinlocks, interrupts and a few more. Where that variable is can be read off the
//!   kernel's own code, which increments and decrements it thousands of times by instructions of one form.
//!   So neither symbols nor the user's help are needed. A vCPU whose count is not 0 holds something; if it is
//!   also at a PAUSE instruction, it waits for something.
//!
//! A count is used as long as the kernel's code has it and its values are plausible. When the guest has started
//! another kernel, that is scanned in turn.
//!
//! All of this is a guess, and [`HintSnapshot::is_guess`](crate::hints::HintSnapshot::is_guess) marks it.
//! The guest controls everything that is read: its registers, its page tables, its code. Each address is
//! translated by KVM, checked to lie in the guest's RAM, and read once. So a guest that forges what is read
//! gets the hints that it could publish in a hint page as well.
//!
//! | file | idea |
//! |---|---|
//! | `scan.rs` | which variable a piece of code counts in |
//! | `linked_count.rs` | which variable it is by the kernel's symbols |
//! | `scanner.rs` | the thread that scans a guest's kernel |
//! | `search.rs` | when the kernel is scanned |
//! | `place.rs` | where the variable of one vCPU is in the host's memory |
//! | `plausibility.rs` | whether its values are those of a preempt count |
//! | `pause.rs` | whether a vCPU is at a PAUSE instruction |
//! | `registers.rs` | what is read of a vCPU |
//! | `any_guest.rs` | the layer of any guest |
//! | `linux.rs` | the layer of Linux; a profile of another system is another such file |
//! | `look_pace.rs` | how soon a vCPU is looked at |
//! | `notice.rs` | what the user is to know |
//! | `provider.rs` | from these to the hints of a vCPU |

mod any_guest;
mod linked_count;
mod linux;
mod look_pace;
mod notice;
mod pause;
mod place;
mod plausibility;
mod provider;
mod registers;
mod scan;
mod scanner;
mod search;

pub use linked_count::LinkedCount;
pub use look_pace::{Look, LookPace};
pub(crate) use provider::GuestParts;
pub use provider::InferredHints;
pub(crate) use registers::copy_at_exits;
pub(crate) use scan::{Finding, Scan};
pub(crate) use scanner::{ScanRequest, Scanned, ScannedGuest};
pub(crate) use search::Progress;
