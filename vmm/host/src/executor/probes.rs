//! Who hears the policy: the recorder of the timeline, the trace, the metrics. Each may be off.

use baton_observe::metrics::tally::Tally;
use baton_observe::recorder::Recorder;
use baton_observe::trace::record::{Port, What};
use vcpu_sched::{Event, Events, Ns, VcpuId};

/// The policy's listener. Called under the pool's lock, which makes it the one producer of the
/// trace's ring.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    pub(crate) recorder: Recorder,
    pub(crate) trace: Option<Port>,
    pub(crate) tally: Option<Tally>,
}

impl Listener {
    /// `vcpu` has left the policy, or leaves it when it stops.
    pub(crate) fn gone(&mut self, at: Ns, vcpu: VcpuId) {
        if let Some(trace) = &mut self.trace {
            trace.record(at, What::Gone(vcpu));
        }
    }
}

impl Events for Listener {
    fn event(&mut self, at: Ns, event: Event) {
        if let Some(trace) = &mut self.trace {
            trace.record(at, What::Policy(event));
        }
        if let Some(tally) = &mut self.tally {
            tally.event(at, &event);
        }
        self.recorder.event(at, event);
    }
}
