//! What a simulated vCPU does.

use crate::ids::{Ns, VcpuId};
use crate::sim::liar::Liar;
use crate::sim::lock::LockId;

/// One thing that a vCPU does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Needs this much CPU time, ns.
    Compute(Ns),
    /// Takes a lock, and waits for it in the way of its kind.
    Lock(LockId),
    /// Releases a lock that it holds.
    Unlock(LockId),
    /// Halts until it is woken.
    Halt,
    /// Wakes another vCPU of its guest, as an inter-processor interrupt would.
    Wake(VcpuId),
    /// Halts for this long, ns.
    Sleep(Ns),
    /// Halts until this time, ns, has passed since the last period began: a periodic job. A job that is late
    /// goes on at once.
    NextPeriod(Ns),
}

/// The CPU time that a pass through a repeated script takes at least, ns, so that time advances.
pub(crate) const LEAST_PASS: Ns = 100;

/// Steps in order, once or over and over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    pub(crate) steps: Vec<Step>,
    pub(crate) repeats: bool,
}

impl Script {
    /// Does `steps`, then its vCPU ends.
    pub fn once(steps: impl Into<Vec<Step>>) -> Self {
        Self {
            steps: steps.into(),
            repeats: false,
        }
    }

    /// Does `steps` for ever. A pass takes at least 100 ns of CPU time.
    pub fn forever(steps: impl Into<Vec<Step>>) -> Self {
        let mut steps = steps.into();
        let computes = |step: &Step| matches!(step, Step::Compute(time) if *time >= LEAST_PASS);
        if !steps.iter().any(computes) {
            steps.push(Step::Compute(LEAST_PASS));
        }
        Self {
            steps,
            repeats: true,
        }
    }

    /// Computes and never stops.
    #[must_use]
    pub fn hog() -> Self {
        Self::forever([Step::Compute(1_000_000_000)])
    }
}

/// What drives a vCPU.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// It follows a script and the ABI.
    Script(Script),
    /// It does and publishes random things.
    Liar(Liar),
}

impl From<Script> for Behaviour {
    fn from(script: Script) -> Self {
        Self::Script(script)
    }
}

impl From<Liar> for Behaviour {
    fn from(liar: Liar) -> Self {
        Self::Liar(liar)
    }
}
