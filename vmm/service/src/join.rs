//! Guests of other processes join, change themselves, and leave.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use baton_api::EventKind;
use baton_host::executor::ProcessReport;
use baton_link::connection::{Connection, ForeignFile};
use baton_link::foreign_process::ForeignProcess;
use baton_link::join::accept;
use baton_link::message::{Change, CheckedShare, GuestEnded, JoinRequest, check_hints};
use baton_os::peer::Peer;
use baton_os::sys;
use vcpu_sched::SchedParams;

use crate::failure::{Failure, FailureKind};
use crate::grants::{Action, Rights, VcpuClaim};
use crate::notice_limit::NoticeLimit;
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
                self.events
                    .publish_of(uid, EventKind::Joined { guest, uid, pid });
            }
            Err(refusal) => {
                let uid = peer.uid;
                // The name is not checked yet.
                let guest = guest.escape_debug().take(64).collect();
                let reason = refusal.reason.clone();
                let refused = EventKind::Refused { guest, uid, reason };
                self.events.publish_of(uid, refused);
            }
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
        let rights = self.grants().check(peer, Action::Join);
        let rights = rights.map_err(Refusal::new)?;
        if !self.works.load(Ordering::Relaxed) {
            return Err(Refusal::new(
                "the pool makes no progress at the moment; see its log, or restart it",
            ));
        }
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
        self.one_at_a_time(|| {
            if let Rights::Granted(terms) = &rights {
                let others = self.usage_of(peer.uid, None);
                terms.check(others, &claims).map_err(Refusal::new)?;
            }
            let now = sys::monotonic_ns();
            let own_name = self.names.check(&request.name, peer.uid, now);
            own_name.map_err(Refusal::new)?;
            let lead = self.leads.take(peer.uid, now);
            let joining = self.pool.join(joined, request, (process, lead), report);
            let number = joining.inspect_err(|_| self.leads.add(peer.uid, lead, now))?;
            // It stays in the pool until this thread takes it out, so the name is still its own.
            let identity = self.handle.find(&request.name).map_err(|error| {
                self.pool.process_gone(number, None);
                Refusal::new(error)
            })?;
            let guest = ProcessGuest {
                identity,
                uid: peer.uid,
                pid: peer.pid,
                console: request.console.clone(),
                hints: request.hints.clone(),
                restarts: request.restarts,
                is_restarting: false,
                connection: Arc::clone(connection),
                pidfd,
                notices: NoticeLimit::of_process(),
            };
            self.processes.add(number, guest);
            self.names.take(&request.name, peer.uid, number, now);
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
        let own = self.processes.with(number, |guest| guest.identity.clone());
        let own = own.ok_or_else(|| Refusal::new("the guest has left the pool"))?;
        let vcpus = self.claims_of(&own).map_err(Refusal::from)?.len();
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
        let rights = self.grants().check(peer, Action::Control(Some(peer.uid)));
        let rights = rights.map_err(Refusal::new)?;
        let changed = self.edit(&own, (peer, &rights), edit);
        changed.map_err(Refusal::from)
    }

    /// The hints of the guest `number` come from `source` now.
    ///
    /// # Errors
    /// If the text cannot be shown.
    pub(crate) fn set_hints(&self, number: u64, source: String) -> Result<(), Failure> {
        check_hints(&source).map_err(|error| Failure::new(FailureKind::Senseless, error))?;
        self.pool.hints_reported(number, &source);
        let now = sys::monotonic_ns();
        let changed = self.processes.with(number, |guest| {
            let is_news = std::mem::replace(&mut guest.hints, source) != guest.hints;
            // The list has the last source, also if it changes too often to be told each time.
            let is_told = is_news && guest.notices.take(now).is_some();
            is_told.then(|| (guest.uid, guest.identity.name().to_owned()))
        });
        if let Some((uid, guest)) = changed.flatten() {
            self.events.publish_of(uid, EventKind::Changed { guest });
        }
        Ok(())
    }

    /// The guest `number` has `ended`, and is to start again in its process.
    ///
    /// # Errors
    /// If the text cannot be shown.
    pub(crate) fn restarting(&self, number: u64, ended: GuestEnded) -> Result<(), Failure> {
        ended
            .check()
            .map_err(|error| Failure::new(FailureKind::Senseless, error))?;
        self.pool.restarting(number);
        let changed = self.processes.with(number, |guest| {
            guest.is_restarting = true;
            (guest.uid, guest.identity.name().to_owned())
        });
        if let Some((uid, guest)) = changed {
            let GuestEnded { ok, text: how } = ended;
            self.events
                .publish_of(uid, EventKind::Restarting { guest, ok, how });
        }
        Ok(())
    }

    /// The guest `number` has started again, `restarts` times so far.
    pub(crate) fn restarted(&self, number: u64, restarts: u32) {
        self.pool.restarted(number, restarts);
        let changed = self.processes.with(number, |guest| {
            guest.is_restarting = false;
            guest.restarts = restarts;
            (guest.uid, guest.identity.name().to_owned())
        });
        if let Some((uid, guest)) = changed {
            self.events
                .publish_of(uid, EventKind::Restarted { guest, restarts });
        }
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
        let Some((uid, name)) = self.processes.with(number, |guest| {
            if let Departure::Failed(_) = how
                && let Err(error) = guest.kill()
            {
                let (pid, guest) = (guest.pid, guest.identity.name());
                tracing::error!(guest, pid, %error, "a process that has failed cannot be killed; kill it, or give the pool CAP_KILL");
            }
            (guest.uid, guest.identity.name().to_owned())
        }) else {
            return;
        };
        let ended = match &how {
            Departure::Ended(ended) => Some(ended.clone()),
            Departure::Gone | Departure::Failed(_) => None,
        };
        let has_ended = ended.is_some();
        let left = self.pool.process_gone(number, ended);
        self.leads.add(uid, left.lead_ns, sys::monotonic_ns());
        // Its owner has what it had until here.
        let process = self.processes.remove(number);
        if let Some(process) = process.filter(|_| has_ended) {
            process.show_counters(&left.counters);
        }
        let may_return = !matches!(how, Departure::Ended(_));
        self.names
            .leave(&name, number, may_return, sys::monotonic_ns());
        let guest = name;
        match how {
            Departure::Ended(GuestEnded { ok, text: how }) => {
                self.events
                    .publish_of(uid, EventKind::Ended { guest, ok, how });
            }
            Departure::Gone => {
                let how = "its process has ended or left the pool".to_owned();
                let ended = EventKind::Ended {
                    guest,
                    ok: false,
                    how,
                };
                self.events.publish_of(uid, ended);
            }
            // Always logged: a process fails once, and joins no more often than its user may connect.
            Departure::Failed(reason) => {
                self.events.publish(EventKind::Failed { guest, reason });
            }
        }
    }
}

/// What a vCPU with this `share` has, in a guest with this `weight`.
fn claim(share: &CheckedShare, weight: u32) -> VcpuClaim {
    VcpuClaim {
        params: share.params(weight),
        host_cpus: share.host_cpus.clone(),
    }
}
