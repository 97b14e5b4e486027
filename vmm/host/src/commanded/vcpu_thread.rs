//! A vCPU's thread in the process of its guest.

use std::io;

use baton_machine::Vcpu;
use baton_os::sys;
use vcpu_sched::Counters;

use super::current_vcpu::CurrentVcpu;
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

    /// Whether halts of its vCPU are noticed at once.
    pub(super) fn detects_halts(&self) -> bool {
        self.server.detects_halts()
    }

    /// Runs `vcpu`, and those that take its place, in the phases from `slot` until its guest has ended for good. Returns
    /// what was counted.
    pub(super) fn run(mut self, vcpu: Box<Vcpu>, slot: &PhaseSlot) -> VcpuAccount {
        let mut current = CurrentVcpu::new(vcpu);
        sys::set_exact_timers();
        while let Some((phase, vcpu)) = slot.take() {
            let vcpu = current.replace(vcpu);
            match phase {
                Phase::Commanded(seat) => self.server.obey(&mut current, seat, slot),
                Phase::Alone(controls) => {
                    self.server.leave_pool();
                    if let Some(vcpu) = vcpu {
                        shown::show_alone(vcpu);
                        run_until_stopped(vcpu, &controls);
                    }
                }
                Phase::Held => self.server.leave_pool(),
            }
            // What it has of the host may be needed for the next one.
            current.release_ended();
        }
        self.account(&current)
    }

    fn account(&self, current: &CurrentVcpu) -> VcpuAccount {
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
            exits: current.exits(),
        }
    }
}
