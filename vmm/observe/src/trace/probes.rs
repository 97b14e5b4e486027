//! The recording ends of a trace: one for the policy's events, one for the exits of each executor.

use vcpu_sched::{CpuId, Event, Ns, VcpuId};

use super::record::{RecordedEvent, RingWriter};
use crate::exit_kind::ExitKind;

/// All recording ends of a trace.
#[derive(Debug)]
pub struct TraceProbes {
    /// For the policy.
    pub policy: PolicyProbe,
    /// For the executors, in the order of their host CPUs.
    pub executors: Vec<ExitProbe>,
}

/// Records what the policy does. It is called under the pool's lock, which makes it the one producer of its
/// ring.
#[derive(Debug)]
pub struct PolicyProbe(pub(super) RingWriter);

impl PolicyProbe {
    /// Records that the policy did `event` at `at`, ns of `CLOCK_MONOTONIC`.
    pub fn event(&mut self, at: Ns, event: Event) {
        self.0.record(at, RecordedEvent::Policy(event));
    }

    /// Records that a vCPU joined at `at`, ns, which is `vcpu` from now on. Its name is left under `number`
    /// ([`JoinedNames`](super::JoinedNames)).
    pub fn joined(&mut self, at: Ns, vcpu: VcpuId, number: u32) {
        self.0.record(at, RecordedEvent::Joined { vcpu, number });
    }

    /// Records that `vcpu` left the policy at `at`, ns, or leaves it when it stops.
    pub fn gone(&mut self, at: Ns, vcpu: VcpuId) {
        self.0.record(at, RecordedEvent::Gone(vcpu));
    }
}

/// Records what happens on one executor outside the pool's lock.
#[derive(Debug)]
pub struct ExitProbe(pub(super) RingWriter);

impl ExitProbe {
    /// Records that `vcpu` returned to the executor of `cpu` at `at`, ns of `CLOCK_MONOTONIC`.
    pub fn exit(&mut self, at: Ns, cpu: CpuId, vcpu: VcpuId, kind: ExitKind) {
        self.0.record(at, RecordedEvent::Exit { cpu, vcpu, kind });
    }
}
