//! The arguments of `baton console`.

use clap::Args;

use super::pool_guest::PoolFlag;

/// Arguments of `baton console`.
#[derive(Debug, Args)]
pub struct ConsoleArgs {
    /// Name of a guest of the pool, or a path with a slash: the socket of a console, which the guest was given
    /// by --console unix:PATH
    #[arg(value_name = "NAME|SOCKET")]
    pub console: String,
    /// The pool.
    #[command(flatten)]
    pub pool: PoolFlag,
}
