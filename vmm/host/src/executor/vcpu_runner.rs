//! How an executor has a vCPU run: on its own thread, or on the vCPU's.
//!
//! A vCPU of another process always runs on its own thread there (`foreign_run.rs`). For those of this process there
//! are two forms. [`Inline`]: the executor's own thread calls `KVM_RUN`. [`Threaded`](super::threaded::Threaded): each
//! vCPU has a thread, which the executor wakes and waits for. Policy, accounting and the handling of
//! exits are the same.
//!
//! Before 6.13, Linux waits for an RCU grace period, milliseconds, whenever a vCPU is run by another
//! thread than before. There the second form is the default. It also serves to see vCPUs in `top -H` or
//! `perf kvm`.

use baton_machine::Vcpu;

use super::kick_target::KickTarget;
use super::local_vcpu::{FinishedRun, LocalVcpu};
use super::run_loop::RunLoop;
use crate::halt::{HaltSetup, InPlaceEnd};

/// How an executor has a vCPU run.
pub(crate) trait VcpuRunner {
    /// See [`RunLoop::run`]. `None`: the vCPU is lost with its thread, which only a bug of this program
    /// can cause; its guest cannot go on.
    fn run(
        &mut self,
        vcpu: LocalVcpu,
        until: Option<u64>,
        target: &KickTarget,
    ) -> Option<FinishedRun>;

    /// Whether halts end a run.
    fn detects_halts(&self) -> bool;

    /// Whether a halted vCPU can sleep on the executor's thread, where it runs when it wakes.
    fn can_sleep(&self) -> bool;

    /// See [`RunLoop::sleep`].
    fn sleep(&mut self, vcpu: &mut Vcpu, until: Option<u64>, target: &KickTarget) -> InPlaceEnd;
}

/// The executor's thread runs the vCPU itself.
pub(crate) struct Inline {
    pub(crate) run_loop: RunLoop,
    /// `None` where wakes cannot be made exits.
    pub(crate) halt_setup: Option<HaltSetup>,
}

impl VcpuRunner for Inline {
    fn run(
        &mut self,
        mut vcpu: LocalVcpu,
        until: Option<u64>,
        target: &KickTarget,
    ) -> Option<FinishedRun> {
        let exit = self.run_loop.run(&mut vcpu, until, target);
        Some(FinishedRun {
            vcpu,
            exit,
            elsewhere_ns: 0,
        })
    }

    fn detects_halts(&self) -> bool {
        self.run_loop.detects_halts()
    }

    fn can_sleep(&self) -> bool {
        self.halt_setup.is_some()
    }

    fn sleep(&mut self, vcpu: &mut Vcpu, until: Option<u64>, target: &KickTarget) -> InPlaceEnd {
        match &self.halt_setup {
            Some(setup) => self.run_loop.sleep(vcpu, until, target, setup),
            None => InPlaceEnd::NeedsHaltThread,
        }
    }
}
