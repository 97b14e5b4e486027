//! The control socket of a run.

use std::path::PathBuf;

/// Where a run offers its control socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Control {
    /// Nowhere.
    #[default]
    Off,
    /// In the user's runtime directory, named after the process. A run that cannot create the socket
    /// prints a warning and goes on without.
    Default,
    /// At this path.
    Path(PathBuf),
}

impl std::str::FromStr for Control {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "off" => Self::Off,
            path => Self::Path(path.into()),
        })
    }
}
