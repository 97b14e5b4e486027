//! A stretch of the policy's decisions: recorded while guests run, and drawn as text.
//!
//! | file | idea |
//! |---|---|
//! | `recorder.rs` | which decisions are kept |
//! | `lanes.rs` | from decisions to lanes: what each host CPU runs and what each vCPU does |
//! | `drawing.rs` | lanes as text, for real runs and for simulated ones, which have the same events |

mod drawing;
pub mod lanes;
pub mod recorder;

pub use drawing::render;
