//! `baton run --trace FILE`: every decision of the policy and every exit, as a trace that Perfetto
//! shows ([`perfetto`] has the format; <https://ui.perfetto.dev> opens it).
//!
//! | file | idea |
//! |---|---|
//! | `record.rs` | what is recorded, and the rings that carry it to the writer |
//! | `probes.rs` | the recording ends of the rings |
//! | `writer.rs` | the thread that empties the rings into the file |
//! | `joined_names.rs` | the names of vCPUs that join later |
//! | `trace_file.rs` | the file before the run is known to start |
//! | `picture.rs` | from records to slices, arrows and counters |
//! | `canvas.rs`, `vcpu_track.rs` | what each track shows at the moment |
//! | `tracks.rs` | which tracks there are, and their numbers |
//! | `packets.rs` | names become numbers, packets become bytes |
//! | `perfetto.rs` | the messages of the format |

mod canvas;
mod error;
mod joined_names;
mod packets;
pub mod perfetto;
mod picture;
mod probes;
mod record;
mod trace_file;
mod tracks;
mod vcpu_track;
mod writer;

pub use crate::exit_kind::ExitKind;
pub use crate::names::{Names, VcpuName};
pub use error::TraceError;
pub use joined_names::JoinedNames;
pub use probes::{ExitProbe, PolicyProbe, TraceProbes};
pub use trace_file::TraceFile;
pub use writer::{PreparedTrace, Tracing};
