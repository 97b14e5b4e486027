//! `baton bench lhp`: how much lock-holder preemption costs, and what Baton makes of it.
//!
//! [`matrix`] lists the cells of the benchmark, [`rounds`] orders their runs, and [`lock_run`] makes one run and
//! reads its figures. Meanwhile [`disturbance`] measures the CPU time of other processes. [`report`] computes
//! the results; [`table`], [`json`], [`csv`] and [`html`] show them. For the HTML page, [`scene`] records one
//! preempted critical section.

pub mod args;
pub mod axes;
pub mod cell;
pub mod cell_runs;
mod color;
pub mod csv;
pub mod disturbance;
pub mod html;
pub mod json;
pub mod lock_run;
pub mod matrix;
mod measure;
pub mod percentiles;
pub mod plan;
pub mod plot;
mod progress;
pub mod report;
pub mod rounds;
pub mod scene;
pub mod scene_plot;
pub mod schema;
pub mod table;

pub use args::LhpArgs;
pub use measure::run;
