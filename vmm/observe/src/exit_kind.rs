//! Why vCPUs return to their executors, as traces and metrics name it.

/// Why a vCPU returned to its executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitKind {
    /// For a device, or for anything else that the VMM has handled.
    Device,
    /// A signal, or a request to leave the guest at once.
    Interrupted,
    /// The guest rang the doorbell.
    Doorbell,
    /// A single step is over.
    Debug,
    /// The vCPU halted.
    Halted,
    /// The guest ended.
    Ended,
}

impl ExitKind {
    /// All kinds. The position of each is its discriminant.
    pub(crate) const ALL: [Self; 6] = [
        Self::Device,
        Self::Interrupted,
        Self::Doorbell,
        Self::Debug,
        Self::Halted,
        Self::Ended,
    ];

    /// The name of the kind in traces and in the label `kind` of metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Interrupted => "interrupted",
            Self::Doorbell => "doorbell",
            Self::Debug => "debug",
            Self::Halted => "halted",
            Self::Ended => "ended",
        }
    }
}
