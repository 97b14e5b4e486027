//! The seam: an executor has a vCPU run, in one of two ways.
//!
//! *Direct*: the executor's own thread calls `KVM_RUN`. *vCPU threads*: each vCPU has a thread,
//! which the executor wakes and waits for; policy, accounting and exit handling stay the same.
//! Linux before 6.13 waits for an RCU grace period, milliseconds, whenever a vCPU is run by another
//! thread than before, so there the second way is the default; it is also the one for who wants to
//! see vCPUs in `top -H` or `perf kvm`.

use baton_machine::{Exit, Vcpu};

use super::kick_target::Station;
use super::run_loop::Lane;
use crate::halt::{HaltSetup, InPlaceEnd};

/// A vCPU that came back.
pub(crate) struct Ran {
    pub(crate) vcpu: Box<Vcpu>,
    pub(crate) exit: Exit,
    /// CPU time that other threads than the executor's spent on it, ns.
    pub(crate) elsewhere_ns: u64,
}

/// How an executor has a vCPU run.
pub(crate) trait Seam {
    /// See [`Lane::run`]. `None`: the vCPU is lost with its thread, which only a bug of this
    /// program can cause; its guest cannot go on.
    fn run(&mut self, vcpu: Box<Vcpu>, until: Option<u64>, station: &Station) -> Option<Ran>;

    /// Whether halts end a run.
    fn sees_halts(&self) -> bool;

    /// Whether a halted vCPU can sleep on the executor's thread, where it would run when it wakes.
    fn naps(&self) -> bool;

    /// See [`Lane::nap`].
    fn nap(&mut self, vcpu: &mut Vcpu, until: Option<u64>, station: &Station) -> InPlaceEnd;
}

/// The executor's thread runs the vCPU itself.
pub(crate) struct Direct {
    pub(crate) lane: Lane,
    /// `None` where wakes cannot be made exits.
    pub(crate) halt_setup: Option<HaltSetup>,
}

impl Seam for Direct {
    fn run(&mut self, mut vcpu: Box<Vcpu>, until: Option<u64>, station: &Station) -> Option<Ran> {
        let exit = self.lane.run(&mut vcpu, until, station);
        Some(Ran {
            vcpu,
            exit,
            elsewhere_ns: 0,
        })
    }

    fn sees_halts(&self) -> bool {
        self.lane.sees_halts()
    }

    fn naps(&self) -> bool {
        self.halt_setup.is_some()
    }

    fn nap(&mut self, vcpu: &mut Vcpu, until: Option<u64>, station: &Station) -> InPlaceEnd {
        match &self.halt_setup {
            Some(setup) => self.lane.nap(vcpu, until, station, setup),
            None => InPlaceEnd::NeedsHaltThread,
        }
    }
}
