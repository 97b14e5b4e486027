//! The program `baton`: its command line, and the commands that need no crate of their own.

pub mod check;
pub mod cli;
pub mod sim_command;
