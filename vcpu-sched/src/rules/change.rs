//! Changes for a vCPU that exists: another reservation, another weight, other CPUs.
//!
//! 1. **Admission comes first.** What does not fit is refused, with what would fit, and then nothing changes.
//!    While old and new overlap, there has to be room for the larger of the two on each CPU (`admission.rs`).
//! 2. A new **reservation** is in force from the vCPU's next budget on (`cbs.rs`): the budget and the deadline at
//!    hand are those of the old one, so the change gives nothing twice and takes nothing away. What runs on the
//!    budget of this vCPU, or carries it, goes on.
//! 3. A new **weight** is in force from the next slice on.
//! 4. A best-effort vCPU that gets a reservation begins its first period at once, but no earlier than at the 0-lag
//!    time of the reservation that it had before: what has been used of that is not used again. A vCPU that gets a
//!    weight in place of its reservation joins the fair order at once, like one that wakes.
//! 5. A vCPU with other **CPUs** competes there as if it woke: it keeps its deadline and the rest of its budget if
//!    these do not exceed its bandwidth, and has a fresh period otherwise (`Server::wake`). In the fair order it is
//!    as far behind or ahead as it was.
//!
//! Rules 4 and 5 are for a vCPU that is on no CPU. Otherwise the CPUs that run it, or run something on its
//! budget, are kicked, and the change is *pending* until they stop.

use crate::classes::admission::{Admission, AdmissionError, Held, density};
use crate::classes::reservation::{Reservation, SchedParams};
use crate::classes::sched_class::SchedClass;
use crate::cpuset::CpuSet;
use crate::events::{Event, Events};
use crate::ids::{DomainId, Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::{ExecState, PendingChange, ScState, VcpuState};
use crate::state::timer_queue::TimerId;

impl<E: Events> Scheduler<E> {
    /// Gives `vcpu` this reservation in place of the one, or the weight, that it has.
    ///
    /// # Errors
    /// The reservation does not fit, and the error names what would; or the vCPU has ended.
    pub fn set_reservation(
        &mut self,
        vcpu: VcpuId,
        reservation: Reservation,
        now: Ns,
    ) -> Result<(), AdmissionError> {
        self.has_not_ended(vcpu)?;
        // A replenishment that is due, and to which no CPU had to attend, is one of the old reservation.
        self.fire_timers(now);
        let allowed = self.promised_cpus(vcpu);
        self.readmit(vcpu, Some(reservation), allowed, now)?;
        let VcpuState { sc, pending, .. } = &mut self.vcpus[vcpu];
        let (idle, throttled) = (sc.state == ScState::Off, sc.state == ScState::Throttled);
        // A vCPU that is about to lose its reservation for a weight loses it for this one: its bandwidth may have
        // been given to others.
        let server = sc.class.server_mut().filter(|_| pending.params.is_none());
        let Some(server) = server else {
            self.vcpus[vcpu].pending.params = Some(SchedParams::Reserved(reservation));
            self.apply_or_kick(vcpu, now);
            return Ok(());
        };
        server.change(reservation, idle, now);
        let replenished_at = server.replenished_at();
        if throttled {
            self.set_timer(TimerId::Sc(vcpu), replenished_at, now);
        } else {
            self.deadline_changed(vcpu, now);
        }
        self.settle_change(vcpu, now);
        self.check();
        Ok(())
    }

    /// Gives `vcpu` this weight of its guest in place of the one, or the reservation, that it has.
    ///
    /// # Errors
    /// The vCPU has ended.
    pub fn set_weight(&mut self, vcpu: VcpuId, weight: u32, now: Ns) -> Result<(), AdmissionError> {
        self.has_not_ended(vcpu)?;
        self.fire_timers(now);
        let allowed = self.promised_cpus(vcpu);
        self.readmit(vcpu, None, allowed, now)?;
        let runs = matches!(self.vcpus[vcpu].sc.state, ScState::OnCpu(_));
        let v = &mut self.vcpus[vcpu];
        match &mut v.sc.class {
            SchedClass::Deadline(_) => {
                v.pending.params = Some(SchedParams::BestEffort { weight });
            }
            SchedClass::Fair(fair) => {
                v.pending.params = None;
                fair.set_weight(weight, runs);
                self.emit(now, Event::WeightChanged(vcpu, weight));
            }
        }
        self.apply_or_kick(vcpu, now);
        Ok(())
    }

    /// Lets `vcpu` run on these CPUs from now on; `None`: on every CPU of the pool.
    ///
    /// # Errors
    /// The vCPU's reservation does not fit there, and the error names what would; the CPUs are not of the
    /// pool; there are too many different pinnings; or the vCPU has ended.
    pub fn set_allowed(
        &mut self,
        vcpu: VcpuId,
        allowed: Option<CpuSet>,
        now: Ns,
    ) -> Result<(), AdmissionError> {
        self.has_not_ended(vcpu)?;
        let allowed = self.pinning_to(allowed);
        if allowed.and(self.cpus.all()).is_empty() {
            return Err(AdmissionError::NoCpu);
        }
        if allowed == self.promised_cpus(vcpu) {
            return Ok(());
        }
        self.has_room_for_pinning(allowed)?;
        self.fire_timers(now);
        self.readmit(vcpu, self.promised(vcpu), allowed, now)?;
        let domain = self.join_domain(allowed);
        let before = self.vcpus[vcpu].pending.pinning.replace((allowed, domain));
        if let Some((_, domain)) = before {
            self.leave_domain(domain, now);
        }
        self.apply_or_kick(vcpu, now);
        Ok(())
    }

    fn has_not_ended(&self, vcpu: VcpuId) -> Result<(), AdmissionError> {
        let v = self.vcpus.get(vcpu);
        let goes_on = v.is_some_and(|v| v.ec.state != ExecState::Gone && !v.ec.ending);
        goes_on.then_some(()).ok_or(AdmissionError::NoVcpu(vcpu))
    }

    /// The reservation that `vcpu` has once all changes are in force.
    pub(crate) fn promised(&self, vcpu: VcpuId) -> Option<Reservation> {
        let v = &self.vcpus[vcpu];
        match v.pending.params {
            Some(SchedParams::Reserved(reservation)) => Some(reservation),
            Some(SchedParams::BestEffort { .. }) => None,
            None => v.sc.class.server().map(|server| *server.promised()),
        }
    }

    /// The CPUs that `vcpu` may use once all changes are in force.
    pub(crate) fn promised_cpus(&self, vcpu: VcpuId) -> CpuSet {
        let v = &self.vcpus[vcpu];
        v.pending.pinning.map_or(v.ec.allowed, |(cpus, _)| cpus)
    }

    /// Rule 1: admits `vcpu` with `to` on the CPUs `allowed` instead of what it has.
    fn readmit(
        &mut self,
        vcpu: VcpuId,
        to: Option<Reservation>,
        allowed: CpuSet,
        now: Ns,
    ) -> Result<(), AdmissionError> {
        self.pay_off_debt(vcpu, now);
        self.free_held_bandwidth(now);
        let mut after = self.admission.clone();
        let (promised, from) = (self.promised(vcpu), self.promised_cpus(vcpu));
        let moves = allowed != from;
        if let Some(promised) = &promised {
            after.give_back(promised, from);
        }
        let in_force = self.vcpus[vcpu].sc.class.server();
        let in_force = in_force.filter(|server| server.used_until(now) > now);
        let wanted = to.as_ref().map_or(0, density);
        let held = match in_force {
            Some(_) => after.free_held_of(vcpu, from, u64::MAX),
            // The rest is held on: it is that of a reservation that the vCPU has given up.
            None if moves => 0,
            None => after.free_held_of(vcpu, from, wanted),
        };
        let has = promised.as_ref().map_or(0, density) + held;
        // What is in force until the next budget. What was held for it may have been given to others.
        let before = in_force.map_or(0, |server| density(server.admitted()).min(has));
        if let Some(to) = &to {
            let larger = in_force.map(|server| server.admitted());
            let larger = larger.filter(|_| moves && before > wanted).unwrap_or(to);
            if moves || wanted > has {
                self.check_larger(&mut after, vcpu, larger, allowed)?;
            }
            after.add(to, allowed);
        }
        if let Some(server) = in_force {
            let (used_until, zero_lag) = (server.used_until(now), server.zero_lag(now));
            let held = |allowed, density, moved_to, until| Held {
                vcpu: Some(vcpu),
                allowed,
                density,
                moved_to,
                until,
            };
            if moves {
                after.hold(held(from, before, Some(allowed), zero_lag), now);
            }
            let until = if to.is_some() { used_until } else { zero_lag };
            after.hold(
                held(allowed, before.saturating_sub(wanted), None, until),
                now,
            );
        }
        self.admission = after;
        Ok(())
    }

    /// Checks that `larger` fits on `allowed` beside what is in `after`. What `vcpu` left behind there is free.
    fn check_larger(
        &self,
        after: &mut Admission,
        vcpu: VcpuId,
        larger: &Reservation,
        allowed: CpuSet,
    ) -> Result<(), AdmissionError> {
        self.fits_on_online(Some(vcpu), larger, allowed)?;
        after.come_back(vcpu, allowed, density(larger));
        after.take(larger, allowed, self.cpus.all())?;
        after.give_back(larger, allowed);
        Ok(())
    }

    /// The periods for which `vcpu` has been throttled count by the reservation that was in force.
    fn pay_off_debt(&mut self, vcpu: VcpuId, now: Ns) {
        let sc = &mut self.vcpus[vcpu].sc;
        if sc.state == ScState::Throttled
            && let Some(server) = sc.class.server_mut()
        {
            server.pay_off(now);
        }
    }

    /// Applies what is pending, or kicks the CPUs after whose stop it is applied.
    fn apply_or_kick(&mut self, vcpu: VcpuId, now: Ns) {
        self.apply_pending_changes(vcpu, now);
        if let ExecState::Running(cpu) = self.vcpus[vcpu].ec.state {
            self.kick(cpu, now);
        }
        if let ScState::OnCpu(cpu) = self.vcpus[vcpu].sc.state {
            self.kick(cpu, now);
        }
        self.check();
    }

    /// Applies the pending changes of `vcpu`, if it is on no CPU: rules 4 and 5.
    pub(crate) fn apply_pending_changes(&mut self, vcpu: VcpuId, now: Ns) {
        let v = &mut self.vcpus[vcpu];
        let runs = matches!(v.ec.state, ExecState::Running(_));
        if runs || matches!(v.sc.state, ScState::OnCpu(_)) || v.pending.is_empty() {
            return;
        }
        let PendingChange { params, pinning } = std::mem::take(&mut v.pending);
        let state = v.sc.state;
        let woken_at = self.take_timer(TimerId::Wake(vcpu));
        let mut replenished_at = None;
        match state {
            ScState::Throttled if params.is_none() => {
                replenished_at = self.take_timer(TimerId::Sc(vcpu));
            }
            ScState::Throttled => {
                self.end_throttling(vcpu, now);
                self.dequeue(vcpu);
            }
            _ => {
                self.settle_deadlines(vcpu, now);
                self.dequeue(vcpu);
            }
        }
        if let Some((allowed, domain)) = pinning {
            self.move_to(vcpu, allowed, domain, now);
        }
        if let Some(params) = params {
            self.change_class(vcpu, params, now);
        }
        if let Some(at) = woken_at {
            self.set_timer(TimerId::Wake(vcpu), at, now);
        }
        if let Some(at) = replenished_at {
            self.set_timer(TimerId::Sc(vcpu), at, now);
        } else if self.is_eligible(vcpu) {
            self.activate(vcpu, now, now);
        }
        if self.cpus.online() != self.cpus.all() {
            self.admit_again(now);
        }
    }

    /// `vcpu`, which is in no table of its domain, goes to another one.
    fn move_to(&mut self, vcpu: VcpuId, allowed: CpuSet, domain: DomainId, now: Ns) {
        let virtual_time = self.domains[domain].virtual_time;
        let v = &mut self.vcpus[vcpu];
        let before = std::mem::replace(&mut v.ec.domain, domain);
        let from = self.domains[before].virtual_time;
        v.sc.class.rebase(from, virtual_time);
        v.ec.allowed = allowed;
        if let Some(lowest) = allowed
            .and(self.cpus.all())
            .lowest()
            .filter(|_| !allowed.contains(v.ec.last_cpu))
        {
            v.ec.last_cpu = lowest;
        }
        v.sc.delivery.move_to(self.domains[domain].host_taken);
        self.end_visits_for_moved(vcpu, now);
        self.leave_domain(before, now);
        self.emit(now, Event::AllowedChanged(vcpu));
    }

    /// `vcpu`, which is in no table of its domain, has another class.
    fn change_class(&mut self, vcpu: VcpuId, params: SchedParams, now: Ns) {
        self.end_promise(vcpu, now);
        let sc = &mut self.vcpus[vcpu].sc;
        if let Some(server) = sc.class.server() {
            sc.another_begins = server.another_begins(now);
        }
        let begin = Some(sc.another_begins).filter(|&begin| begin > now);
        sc.class = match begin {
            Some(begin) => SchedClass::beginning_at(params, begin),
            None => SchedClass::new(params),
        };
        if let Some(since) = sc.reduced_since.take() {
            self.counting.counters_mut(vcpu).reduced_ns += now.saturating_sub(since);
        }
        self.emit(
            now,
            match params {
                SchedParams::Reserved(reservation) => Event::ReservationChanged(vcpu, reservation),
                SchedParams::BestEffort { weight } => Event::WeightChanged(vcpu, weight),
            },
        );
    }

    /// `vcpu` has ended: what is pending for it is of no interest.
    pub(crate) fn drop_pending_changes(&mut self, vcpu: VcpuId, now: Ns) {
        let pending = std::mem::take(&mut self.vcpus[vcpu].pending);
        if let Some((_, domain)) = pending.pinning {
            self.leave_domain(domain, now);
        }
    }

    /// Reports the reservation that has come into force for `vcpu`, if one has. While host CPUs are offline,
    /// less of it may be in force, or more of others.
    #[inline]
    pub(crate) fn settle_change(&mut self, vcpu: VcpuId, now: Ns) {
        if let Some(reservation) = self.vcpus[vcpu].sc.class.take_change() {
            self.emit(now, Event::ReservationChanged(vcpu, reservation));
            if self.cpus.online() != self.cpus.all() {
                self.admit_again(now);
            }
        }
    }

    /// Frees the bandwidth of reservations that were removed, made smaller or moved to other CPUs, as far as it is
    /// no longer used at `now`. Returns when all of it is free, ns; `None`: it is. Until then
    /// [`Scheduler::add_vcpu`] counts it as taken.
    pub fn free_held_bandwidth(&mut self, now: Ns) -> Option<Ns> {
        if self.settle_idle_changes(now) && self.cpus.online() != self.cpus.all() {
            self.admit_again(now);
        }
        self.admission.free_held(now)
    }

    /// Puts in force what is pending for vCPUs that sleep and whose last period is over. Returns whether that was
    /// the case for any.
    pub(crate) fn settle_idle_changes(&mut self, now: Ns) -> bool {
        let mut any = false;
        for vcpu in self.vcpus.place_ids() {
            let Some(v) = self.vcpus.get_mut(vcpu) else {
                continue;
            };
            let idle = v.sc.state == ScState::Off && v.ec.state != ExecState::Gone;
            if let Some(server) = v.sc.class.server_mut().filter(|_| idle) {
                server.change_if_period_is_over(now);
            }
            if let Some(reservation) = v.sc.class.take_change() {
                self.emit(now, Event::ReservationChanged(vcpu, reservation));
                any = true;
            }
        }
        any
    }
}
