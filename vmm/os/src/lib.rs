//! The host kernel as Baton uses it.
//!
//! | module | what it has |
//! |---|---|
//! | [`sys`] | clocks, CPU time of threads, affinity, scheduling |
//! | [`thread_timer`], [`ready_thread`] | a timer that signals its thread, a thread that is ready when its creator goes on |
//! | [`event`] | an event as a file to poll |
//! | [`signals`] | what each signal means, and the thread that takes those of a user |
//! | [`tty`], [`raw_terminal`] | the modes of the terminal, the terminal while its keys go to a guest |
//! | [`mod@say`], [`output`] | sentences for the user, writes that do not wait for ever |
//! | [`printable`] | a guest's output on a terminal that is not its own |
//! | [`abandon`] | work that may hang, and that a stop signal leaves behind |
//! | [`directory`], [`listener`], [`peer`] | files and sockets that other users may reach, and who has connected |
//! | [`cpu_owner`] | which process owns a host CPU |
//! | [`cpu_isolation`] | host CPUs from which other programs are kept away |
//! | [`nospec`] | indices that a guest chooses, masked against speculation |

pub mod abandon;
pub mod cpu_isolation;
pub mod cpu_owner;
pub mod directory;
pub mod event;
pub mod listener;
pub mod nospec;
pub mod output;
pub mod peer;
pub mod printable;
pub mod raw_terminal;
pub mod ready_thread;
pub mod say;
pub mod signals;
pub mod sys;
pub mod thread_timer;
pub mod tty;
