//! A vCPU: a value that exactly one thread owns at a time and runs by calling [`Vcpu::run`].

mod run;

pub use run::{Doorbell, Exit, ExitCounts, ImmediateExit, Vcpu};
