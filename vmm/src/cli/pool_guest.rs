//! The flags of the commands for guests of a pool.

use std::path::PathBuf;
use std::time::Duration;

use baton_api::{GuestChange, ReservationText};
use baton_config::units;
use clap::Args;

use super::sandbox::SandboxFlags;

/// Which pool.
#[derive(Clone, Debug, Args)]
pub struct PoolFlag {
    /// Directory of the pool [default: that of this user or of root]
    #[arg(long = "pool", value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

/// Flags of `baton list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The pool.
    #[command(flatten)]
    pub pool: PoolFlag,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Flags of the commands for one guest.
#[derive(Debug, Args)]
pub struct NamedArgs {
    /// Name of the guest
    pub name: String,
    /// The pool.
    #[command(flatten)]
    pub pool: PoolFlag,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Flags of `baton stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// The guest.
    #[command(flatten)]
    pub guest: NamedArgs,
    /// How long the guest may take after its power button was pressed; 0s powers it off at once
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "30s")]
    pub timeout: Duration,
}

/// Flags of `baton start`.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// TOML file with the guest
    #[arg(value_name = "GUEST.TOML")]
    pub file: PathBuf,
    /// The sandbox of its process.
    #[command(flatten)]
    pub sandbox: SandboxFlags,
    /// The pool.
    #[command(flatten)]
    pub pool: PoolFlag,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Flags of `baton logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Name of the guest, which may have ended
    pub name: String,
    /// Go on with what the guest prints from now on, until Ctrl-c
    #[arg(long, short)]
    pub follow: bool,
    /// How many lines of what is there are shown, 1 MiB at most
    #[arg(long, short = 'n', value_name = "N", default_value_t = 100)]
    pub lines: usize,
}

/// Flags of `baton events`.
#[derive(Debug, Args)]
pub struct EventArgs {
    /// The pool.
    #[command(flatten)]
    pub pool: PoolFlag,
    /// Print JSON, one object in each line
    #[arg(long)]
    pub json: bool,
}

/// Flags of `baton set`.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// The guest.
    #[command(flatten)]
    pub guest: NamedArgs,
    /// The vCPU that is to change [default: all of them]
    #[arg(long, value_name = "N")]
    pub vcpu: Option<u32>,
    /// Its new reservation, such as 5ms/10ms,hard; none takes it away
    #[arg(long, value_name = "BUDGET/PERIOD[/DEADLINE][,hard|soft]")]
    pub reservation: Option<String>,
    /// The new weight of vCPUs without a reservation
    #[arg(long, value_name = "1-10000")]
    pub weight: Option<u32>,
    /// The host CPUs on which it may run, such as 2-3, or all
    #[arg(long, value_name = "CPUS")]
    pub host_cpus: Option<String>,
}

impl SetArgs {
    /// The change.
    #[must_use]
    pub fn change(&self) -> GuestChange {
        GuestChange {
            vcpu: self.vcpu,
            reservation: self.reservation.clone().map(ReservationText::Text),
            weight: self.weight,
            host_cpus: self.host_cpus.clone(),
        }
    }
}
