//! The flags of `baton top`.

use std::path::PathBuf;
use std::time::Duration;

use baton_config::units;
use clap::Args;

/// Flags of `baton top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Process id of the instance [default: the only one]
    pub pid: Option<u32>,
    /// Its control socket, if it is not in the runtime directory
    #[arg(long, value_name = "PATH", conflicts_with = "pid")]
    pub socket: Option<PathBuf>,
    /// Directory of the pool to watch
    #[arg(long, value_name = "DIR", conflicts_with_all = ["pid", "socket"])]
    pub pool: Option<PathBuf>,
    /// Time between two snapshots, at least 20ms
    #[arg(long, value_name = "TIME", value_parser = parse_interval, default_value = "1s")]
    pub interval: Duration,
    /// Print one table and end
    #[arg(long)]
    pub once: bool,
    /// With --once: print the snapshot as JSON
    #[arg(long, requires = "once", conflicts_with = "interval")]
    pub json: bool,
}

/// Parses the time between two snapshots of `baton top`.
fn parse_interval(text: &str) -> Result<Duration, String> {
    match units::parse_duration(text) {
        Ok(interval) if interval < baton_top::SHORTEST => Err(format!(
            "'{text}' is too short, for each snapshot stops the scheduler for a moment: give at least {}",
            units::format_ns(baton_top::SHORTEST.as_nanos() as u64)
        )),
        Ok(interval) => Ok(interval),
        Err(error) => Err(error.to_string()),
    }
}
