//! Arguments of `baton check`.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `baton check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Check this kernel (vmlinux or vmlinuz) instead of the host: whether it boots, and which hints it
    /// publishes or Baton can infer
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
}
