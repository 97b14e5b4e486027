//! Where executors and the policy report what they do, for the timeline, the trace and the metrics. Each
//! of these may be off.

use std::sync::Arc;

use baton_machine::Exit;
use baton_observe::metrics::{ExecutorGauges, Tally};
use baton_observe::recorder::Recorder;
use baton_observe::trace::{ExitKind, ExitProbe, PolicyProbe};
use baton_os::sys;
use vcpu_sched::{CpuId, Event, Events, Ns, Policy, VcpuId};

/// Receives the policy's events. It is called under the pool's lock, which makes it the one producer of
/// its ring of the trace.
#[derive(Debug, Default)]
pub(crate) struct PolicyProbes {
    pub(crate) recorder: Recorder,
    pub(crate) trace: Option<PolicyProbe>,
    pub(crate) tally: Option<Tally>,
}

impl PolicyProbes {
    /// `vcpus` are new vCPUs from now on. The first of their names for the trace has this number; `None`: the
    /// trace has their names from its start.
    pub(crate) fn joined(&mut self, at: Ns, vcpus: &[VcpuId], first: Option<u32>) {
        for (&vcpu, place) in vcpus.iter().zip(0..) {
            if let Some(tally) = &mut self.tally {
                tally.joined(vcpu);
            }
            if let (Some(trace), Some(first)) = (&mut self.trace, first) {
                trace.joined(at, vcpu, first + place);
            }
        }
    }

    /// `vcpu` has left the policy, or leaves it when it stops.
    pub(crate) fn gone(&mut self, at: Ns, vcpu: VcpuId) {
        if let Some(trace) = &mut self.trace {
            trace.gone(at, vcpu);
        }
    }
}

impl Events for PolicyProbes {
    fn event(&mut self, at: Ns, event: Event) {
        if let Some(trace) = &mut self.trace {
            trace.event(at, event);
        }
        if let Some(tally) = &mut self.tally {
            tally.event(at, &event);
        }
        self.recorder.event(at, event);
    }
}

/// The policy of a pool, which reports to the probes.
pub(crate) type PoolPolicy = Box<dyn Policy<PolicyProbes>>;

/// Receives what one executor reports by itself, outside the pool's lock.
#[derive(Debug, Default)]
pub(crate) struct ExecutorProbes {
    pub(crate) trace: Option<ExitProbe>,
    pub(crate) gauges: Option<Arc<ExecutorGauges>>,
}

impl ExecutorProbes {
    /// `vcpu` has left the guest on `cpu`.
    pub(crate) fn exit(&mut self, cpu: CpuId, vcpu: VcpuId, exit: &Exit) {
        let kind = kind_of(exit);
        if let Some(trace) = &mut self.trace {
            trace.exit(sys::monotonic_ns(), cpu, vcpu, kind);
        }
        if let Some(gauges) = &self.gauges {
            gauges.exit(kind);
        }
    }
}

/// The exit as observers name it.
fn kind_of(exit: &Exit) -> ExitKind {
    match exit {
        Exit::Handled => ExitKind::Device,
        Exit::Interrupted => ExitKind::Interrupted,
        Exit::Doorbell(_) => ExitKind::Doorbell,
        Exit::Debug => ExitKind::Debug,
        Exit::Halted => ExitKind::Halted,
        Exit::Ended => ExitKind::Ended,
    }
}
