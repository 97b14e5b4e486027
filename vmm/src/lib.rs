//! The program `baton`: its command line, and the commands that need no crate of their own.

pub mod check;
pub mod cli;
pub mod console_command;
pub mod guest_commands;
pub mod sim_command;
