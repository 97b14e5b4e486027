//! What the rest of the program gives a guest.

use crate::console::ConsolePort;
use crate::devices::VsockBounds;
use crate::reaper::Reaper;

/// What the rest of the program gives a guest. The default discards output and offers no feature.
#[derive(Clone, Debug)]
pub struct GuestWiring {
    /// Where the guest's console output goes.
    pub console: ConsolePort,
    /// `baton_abi::hints::FEATURE_*` bits of the features that the scheduler provides.
    pub features: u32,
    /// How many sockets the guest's vsock device may have.
    pub vsock: VsockBounds,
    /// Releases what the guest has of the host when the guest has ended.
    pub reaper: Reaper,
    /// How often the guest has been started again.
    pub restarts: u32,
    /// The image for [`KernelSource::Builtin`](baton_config::KernelSource::Builtin).
    pub builtin: &'static [u8],
}

impl Default for GuestWiring {
    fn default() -> Self {
        Self {
            console: ConsolePort::discard(),
            features: 0,
            vsock: VsockBounds::default(),
            reaper: Reaper::default(),
            restarts: 0,
            builtin: &[],
        }
    }
}
