//! `baton bench lhp`: how much lock-holder preemption costs, and what Baton makes of it.

pub mod args;
pub mod cell_run;
pub mod csv;
pub mod disturbance;
pub mod html;
pub mod json;
pub mod matrix;
pub mod percentiles;
pub mod plot;
pub mod progress;
pub mod report;
pub mod rounds;
pub mod scene;
pub mod scene_plot;
pub mod table;
