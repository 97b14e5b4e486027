//! A vCPU's thread in the process of its guest.

use std::io;
use std::sync::Arc;
use std::thread;

use baton_machine::{Guest, GuestEnd, Vcpu};
use baton_os::sys;
use vcpu_sched::Counters;

use super::idle_cpus::IdleCpus;
use super::phase::{Phase, PhaseSlot};
use super::server::Server;
use super::shown;
use crate::host_sched::vcpu_loop::run_until_stopped;
use crate::report::VcpuAccount;

/// What a vCPU's thread has.
pub(super) struct VcpuThread {
    server: Server,
    before: sys::SchedStat,
}

/// Ends the guest if the thread of vCPU `index` panics: nothing could run the vCPU any more.
struct EndOnPanic {
    guest: Arc<Guest>,
    index: u32,
}

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.guest.end(GuestEnd::InternalError {
                vcpu: self.index,
                text: "the thread that ran it has failed".into(),
            });
        }
    }
}

impl VcpuThread {
    /// For the calling thread, which has `idle_cpus` while it does not run its vCPU by command.
    ///
    /// # Errors
    /// If the host has no timers or signals for it.
    pub(super) fn for_this_thread(idle_cpus: IdleCpus) -> io::Result<Self> {
        Ok(Self {
            server: Server::for_this_thread(idle_cpus)?,
            before: sys::thread_schedstat(),
        })
    }

    /// Runs `vcpu` in the phases from `slot` until its guest has ended. Returns what was counted.
    pub(super) fn run(mut self, mut vcpu: Box<Vcpu>, slot: &PhaseSlot) -> VcpuAccount {
        let _end_on_panic = EndOnPanic {
            guest: Arc::clone(&vcpu.guest),
            index: vcpu.index,
        };
        sys::set_exact_timers();
        while let Some(phase) = slot.take() {
            match phase {
                Phase::Commanded(seat) => self.server.obey(&mut vcpu, seat, slot),
                Phase::Alone(controls) => {
                    self.server.leave_pool();
                    shown::show_alone(&vcpu);
                    run_until_stopped(&mut vcpu, &controls);
                }
            }
        }
        let account = self.account(&vcpu);
        vcpu.discard();
        account
    }

    fn account(&self, vcpu: &Vcpu) -> VcpuAccount {
        let now = sys::thread_schedstat();
        let ran_ns = now.ran_ns.saturating_sub(self.before.ran_ns);
        let server = &self.server;
        VcpuAccount {
            counters: Counters {
                runtime_ns: ran_ns,
                charged_ns: ran_ns,
                waited_ns: server.shown.all_stolen_ns,
                preemptions: server.shown.preemptions,
                switches: now.switches.saturating_sub(self.before.switches),
                migrations: server.migrations,
                ..Counters::default()
            },
            exits: vcpu.exits,
        }
    }
}
