//! Guests of other processes join, change themselves, and leave.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use baton_api::EventKind;
use baton_host::executor::ProcessReport;
use baton_link::connection::{Connection, ForeignFile};
use baton_link::foreign_process::ForeignProcess;
use baton_link::join::accept;
use baton_link::message::{Change, CheckedShare, GuestEnded, JoinRequest, check_hints};
use baton_os::peer::Peer;
use vcpu_sched::SchedParams;

use crate::failure::Failure;
use crate::grants::{Action, Rights, VcpuClaim};
use crate::process_pool::Refusal;
use crate::processes::ProcessGuest;
use crate::service::Service;

/// How a guest has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Departure {
    /// It ended by itself, and its process has reported that.
    Ended(GuestEnded),
    /// Its process has ended or closed its control socket.
    Gone,
    /// Its process broke the protocol or was late, and is to be killed.
    Failed(String),
}

impl Service {
    /// Has the guest of `request` join, whose process is at the other end of `connection`. Returns its number.
    ///
    /// # Errors
    /// Why it cannot join.
    pub(crate) fn join(
        &self,
        peer: &Peer,
        connection: &Arc<Connection>,
        mut request: JoinRequest,
        file: Option<ForeignFile>,
        report: Arc<dyn ProcessReport>,
    ) -> Result<u64, Refusal> {
        let joined = self.admit(peer, connection, &mut request, file, report);
        let guest = request.name.clone();
        match &joined {
            Ok(_) => {
                let (uid, pid) = (peer.uid, peer.pid);
                self.events.publish(EventKind::Joined { guest, uid, pid });
            }
            Err(refusal) => self.events.publish(EventKind::Refused {
                // It is not checked yet.
                guest: guest.escape_debug().take(64).collect(),
                uid: peer.uid,
                reason: refusal.reason.clone(),
            }),
        }
        joined
    }

    fn admit(
        &self,
        peer: &Peer,
        connection: &Arc<Connection>,
        request: &mut JoinRequest,
        file: Option<ForeignFile>,
        report: Arc<dyn ProcessReport>,
    ) -> Result<u64, Refusal> {
        let rights = self
            .grants
            .check(peer, Action::Join)
            .map_err(Refusal::new)?;
        let process = ForeignProcess::of_peer(connection).map_err(Refusal::new)?;
        if let Rights::Granted(terms) = &rights {
            for vcpu in &mut request.vcpus {
                vcpu.share.host_cpus = terms.host_cpus(vcpu.share.host_cpus.take());
            }
        }
        let joined = accept(&process, request, file).map_err(Refusal::new)?;
        let claim = |vcpu: &baton_link::join::JoinedVcpu| claim(&vcpu.share, request.weight);
        let claims: Vec<VcpuClaim> = joined.vcpus.iter().map(claim).collect();
        let pidfd: OwnedFd = process.pidfd().try_clone().map_err(Refusal::new)?;
        let guest = ProcessGuest {
            name: request.name.clone(),
            uid: peer.uid,
            pid: peer.pid,
            console: request.console.clone(),
            hints: request.hints.clone(),
            connection: Arc::clone(connection),
            pidfd,
        };
        self.one_at_a_time(|| {
            if let Rights::Granted(terms) = &rights {
                // The guest of that name, if there is one, belongs to whoever has it.
                let others = self.usage_of(peer.uid, "");
                terms.check(others, &claims).map_err(Refusal::new)?;
            }
            let number = self.pool.join(joined, request, process, report)?;
            self.processes.add(number, guest);
            Ok(number)
        })
    }

    /// Gives the guest `number` of `peer` the share that its process requests.
    ///
    /// # Errors
    /// Why not; then all is as before.
    pub(crate) fn change_own(
        &self,
        peer: &Peer,
        number: u64,
        change: &Change,
    ) -> Result<(), Refusal> {
        let name = self.processes.with(number, |guest| guest.name.clone());
        let name = name.ok_or_else(|| Refusal::new("the guest has left the pool"))?;
        let vcpus = self.claims_of(&name).map_err(Refusal::from)?.len();
        let share = change.check(vcpus as u32).map_err(Refusal::new)?;
        let edit = |claims: &mut Vec<VcpuClaim>| {
            if let Some(weight) = change.weight {
                for claim in claims.iter_mut() {
                    if let SchedParams::BestEffort { weight: own } = &mut claim.params {
                        *own = weight;
                    }
                }
            }
            if let Some((index, share)) = share {
                let weight = change.weight.unwrap_or(baton_config::DEFAULT_WEIGHT);
                if let Some(own) = claims.get_mut(index as usize) {
                    *own = claim(&share, weight);
                }
            }
            Ok(())
        };
        self.edit(peer, &name, edit).map_err(Refusal::from)
    }

    /// The hints of the guest `number` come from `source` now.
    ///
    /// # Errors
    /// If the text cannot be shown.
    pub(crate) fn set_hints(&self, number: u64, source: String) -> Result<(), Failure> {
        check_hints(&source)
            .map_err(|error| Failure::new(crate::failure::FailureKind::Senseless, error))?;
        self.pool.hints_reported(number, &source);
        let changed = self.processes.with(number, |guest| {
            guest.hints = source;
            guest.name.clone()
        });
        if let Some(guest) = changed {
            self.events.publish(EventKind::Changed { guest });
        }
        Ok(())
    }

    /// The guest `number` leaves. Waits for nothing.
    pub(crate) fn depart(self: &Arc<Self>, number: u64, how: Departure) {
        let service = Arc::clone(self);
        let leave = move || service.leave(number, how);
        // Executors may have to give its vCPUs back first.
        if thread::Builder::new()
            .name("leave".into())
            .spawn(leave)
            .is_err()
        {
            tracing::error!(number, "no thread is left by which a guest could leave");
        }
    }

    fn leave(&self, number: u64, how: Departure) {
        let Some(name) = self.processes.with(number, |guest| {
            if let Departure::Failed(_) = how {
                // It may have ended.
                let _ = guest.kill();
            }
            guest.name.clone()
        }) else {
            return;
        };
        let ended = match &how {
            Departure::Ended(ended) => Some(ended.clone()),
            Departure::Gone | Departure::Failed(_) => None,
        };
        let has_ended = ended.is_some();
        let counters = self.pool.process_gone(number, ended);
        // Its owner has what it had until here.
        let guest = self.processes.remove(number);
        if let Some(guest) = guest.filter(|_| has_ended) {
            guest.show_counters(&counters);
        }
        self.events.publish(match how {
            Departure::Ended(GuestEnded { ok, text }) => EventKind::Ended {
                guest: name,
                ok,
                how: text,
            },
            Departure::Gone => EventKind::Ended {
                guest: name,
                ok: false,
                how: "its process has ended or left the pool".to_owned(),
            },
            Departure::Failed(reason) => EventKind::Failed {
                guest: name,
                reason,
            },
        });
    }
}

/// What a vCPU with this `share` has, in a guest with this `weight`.
fn claim(share: &CheckedShare, weight: u32) -> VcpuClaim {
    VcpuClaim {
        params: share.params(weight),
        host_cpus: share.host_cpus.clone(),
    }
}
