//! From which pool a vCPU's thread takes commands, or that it takes none. Beside that, the vCPU that takes the place of
//! the thread's own when the guest starts again.

use std::sync::Arc;

use baton_link::LinkError;
use baton_link::thread_side::ThreadSide;
use baton_link::wake_file::WakeReport;
use baton_machine::Vcpu;
use thiserror::Error;

use crate::host_sched::vcpu_control::VcpuControl;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Condvar, Mutex};

/// Why a thread takes no more commands from a pool whose control socket is still open.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PoolLost {
    /// The pool has commanded a vCPU to stop, though its guest has not ended.
    #[error("the pool runs the guest no longer")]
    Stopped,
    /// The pool broke the protocol.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// What a thread needs to obey a pool.
pub(super) struct Seat {
    pub(super) side: ThreadSide,
    pub(super) wakes: Arc<WakeReport>,
    /// Called when the thread finds that the pool is lost.
    pub(super) on_lost: Arc<dyn Fn(PoolLost) + Send + Sync>,
}

/// What a thread does until the next phase begins.
pub(super) enum Phase {
    /// It obeys a pool.
    Commanded(Seat),
    /// It runs the vCPU by itself. These are the controls of all vCPUs of the guest.
    Alone(Arc<[VcpuControl]>),
    /// It runs nothing: the guest was paused when its pool went.
    Held,
}

#[derive(Default)]
struct SlotState {
    next: Option<Phase>,
    vcpu: Option<Box<Vcpu>>,
    closed: bool,
}

/// Where a thread takes its next phase from. A phase that has not been taken is replaced by the next one.
#[derive(Default)]
pub(super) struct PhaseSlot {
    state: Mutex<SlotState>,
    changed: Condvar,
    /// Whether there is a phase, without the lock.
    has_next: AtomicBool,
    /// The same of a vCPU.
    has_vcpu: AtomicBool,
    /// The same of the end.
    is_closed: AtomicBool,
}

impl PhaseSlot {
    /// Begins `phase` as soon as the thread is done with the current one, which the caller makes end. Nothing
    /// happens if the slot is closed.
    pub(super) fn put(&self, phase: Phase) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        state.next = Some(phase);
        self.has_next.store(true, Ordering::Release);
        drop(state);
        self.changed.notify_one();
    }

    /// The guest starts again: `vcpu` takes the place of the thread's own, which the thread has released. If `phase`
    /// is given, it begins with the vCPU.
    pub(super) fn put_vcpu(&self, vcpu: Box<Vcpu>, phase: Option<Phase>) {
        let mut state = self.state.lock();
        if state.closed {
            drop(state);
            return vcpu.discard();
        }
        state.vcpu = Some(vcpu);
        self.has_vcpu.store(true, Ordering::Release);
        if phase.is_some() {
            state.next = phase;
            self.has_next.store(true, Ordering::Release);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The vCPU that takes the place of the thread's own, if there is one.
    pub(super) fn take_vcpu(&self) -> Option<Box<Vcpu>> {
        let mut state = self.state.lock();
        self.has_vcpu.store(false, Ordering::Release);
        state.vcpu.take()
    }

    /// No phase follows the current one, because the guest has ended for good; but a pool that was just joined is
    /// obeyed, for it waits for answers.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state
            .next
            .take_if(|next| !matches!(next, Phase::Commanded(_)));
        let unused = state.vcpu.take();
        self.has_next.store(state.next.is_some(), Ordering::Release);
        self.has_vcpu.store(false, Ordering::Release);
        self.is_closed.store(true, Ordering::Release);
        drop(state);
        self.changed.notify_one();
        if let Some(vcpu) = unused {
            vcpu.discard();
        }
    }

    /// Whether there is a vCPU, for a thread that has none.
    pub(super) fn has_vcpu(&self) -> bool {
        self.has_vcpu.load(Ordering::Acquire)
    }

    /// Whether the guest has ended for good.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Whether the thread has to end its current phase.
    pub(super) fn has_next(&self) -> bool {
        self.has_next.load(Ordering::Acquire)
    }

    /// Waits for the next phase. Returns it with the vCPU that takes the place of the thread's own, if there is one.
    /// `None`: the slot is closed.
    pub(super) fn take(&self) -> Option<(Phase, Option<Box<Vcpu>>)> {
        let state = self.state.lock();
        let mut state = self
            .changed
            .wait_while(state, |state| state.next.is_none() && !state.closed);
        self.has_next.store(false, Ordering::Release);
        let phase = state.next.take()?;
        self.has_vcpu.store(false, Ordering::Release);
        Some((phase, state.vcpu.take()))
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;

    fn alone() -> Phase {
        Phase::Alone(Arc::from(Vec::new()))
    }

    #[test]
    fn a_phase_that_was_not_taken_is_replaced_and_none_follows_the_last() {
        let slot = PhaseSlot::default();
        assert!(!slot.has_next());
        slot.put(alone());
        slot.put(alone());
        assert!(slot.has_next());
        assert!(slot.take().is_some() && !slot.has_next());
        slot.put(alone());
        slot.close();
        assert!(!slot.has_next() && slot.take().is_none() && slot.is_closed());
        slot.put(alone());
        assert!(!slot.has_next() && slot.take().is_none());
    }
}
