//! The executor: one thread per host CPU of the pool. It asks the policy what to run, runs it,
//! accounts for it, handles what it came back for, and asks again.

use std::sync::Arc;
use std::time::Duration;

use baton_abi::hints::{RING_DEFER, RING_DONATED};
use baton_machine::{Doorbell, Exit, Guest, GuestEnd, Vcpu};
use baton_os::sys;
use serde::Serialize;
use vcpu_sched::{CpuId, CpuTime, Decision, Hints, Ns, StopReason as Stop, VcpuId};

use super::crossing::Crossing;
use super::host_cpus::OwnCpu;
use super::observed::Tells;
use super::pool::{Pool, Sleeper, State, said};
use super::seam::{Ran, Seam};
use super::signal;
use crate::halt::nap::NapEnd;

/// Where halts do not end `KVM_RUN`, a vCPU is looked at this often, ns.
const HALT_POLL_NS: Ns = 1_000_000;

/// What one executor did with its CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExecutorReport {
    /// Spent on guests, their exits and decisions about them, CPU time, ns; charged to them.
    pub busy_ns: u64,
    /// Spent on waking up for nothing and on decisions to sleep, CPU time, ns; charged to nobody.
    pub unassigned_ns: u64,
    /// Spent by the host on other things while the executor was not asleep, ns.
    pub host_steal_ns: u64,
    /// Asleep for want of work, ns.
    pub idle_ns: u64,
    /// Asleep because the host CPU could not be used: offline, or not for this process; ns.
    pub away_ns: u64,
    /// Decisions of the policy.
    pub decisions: u64,
}

/// One executor.
pub(crate) struct Executor<S> {
    pub(crate) pool: Arc<Pool>,
    pub(crate) cpu: CpuId,
    pub(crate) seam: S,
    /// Whether halted vCPUs have berths to go to.
    pub(crate) berths: bool,
    /// Thread CPU time up to which everything is charged.
    charged_to: Ns,
    /// Up to when all time is accounted for, as CPU time, sleep or what the host took, ns.
    seen_to: Ns,
    /// CPU time spent elsewhere on this executor's behalf since the last charge.
    elsewhere: Ns,
    report: ExecutorReport,
    crossing: Crossing,
    own_cpu: OwnCpu,
    /// Its host CPU was away at its last decision.
    away: bool,
    /// When it began, ns.
    began: Ns,
    /// To whom it tells what it does.
    tells: Tells,
}

/// What the executor holds while it runs a vCPU.
struct Turn {
    vcpu: Box<Vcpu>,
    decision: Decision,
    /// Policy name of vCPU 0 of the guest.
    first: u32,
    /// When the policy wants the CPU back; moves by a deferral.
    until: Option<Ns>,
}

/// A vCPU that came out, not put back yet.
struct Stopped {
    vcpu: Box<Vcpu>,
    why: Stop,
    /// It shall sleep in its berth.
    berth: bool,
    hints: Hints,
    ran: Ns,
    /// What the host gave to others since the last charge, ns.
    host_took: Ns,
}

/// What remains of it when it was put back.
struct Left {
    id: VcpuId,
    guest: Arc<Guest>,
    index: u32,
    rang: bool,
    preempted: bool,
    /// It has nothing to run.
    asleep: bool,
    berth: Option<Sleeper>,
}

impl Left {
    /// Tells the guest that the vCPU is off its CPU.
    fn show_stopped(&self) {
        self.guest.hints.set_running(self.index, false);
        self.guest.steal.set_preempted(self.index, !self.asleep);
        if self.preempted {
            self.guest.hints.count_preemption(self.index);
        }
    }
}

/// What to do after an exit.
enum Next {
    /// Go on with the same vCPU.
    Continue,
    /// Put it back, for this reason, in its berth if told so.
    Stop { why: Stop, berth: bool },
}

impl<S: Seam> Executor<S> {
    pub(crate) fn new(pool: Arc<Pool>, cpu: CpuId, seam: S, berths: bool, tells: Tells) -> Self {
        Self {
            pool,
            cpu,
            seam,
            berths,
            charged_to: 0,
            seen_to: 0,
            elsewhere: 0,
            report: ExecutorReport::default(),
            crossing: Crossing::default(),
            own_cpu: OwnCpu::default(),
            away: false,
            began: 0,
            tells,
        }
    }

    /// Runs vCPUs until the pool stops.
    pub(crate) fn run(mut self) -> ExecutorReport {
        self.pool.station(self.cpu).occupy();
        self.charged_to = sys::thread_cpu_ns();
        self.began = sys::monotonic_ns();
        self.seen_to = self.began;
        let mut stopped = None;
        while let Some(turn) = self.next_turn(stopped.take()) {
            stopped = self.serve(turn);
        }
        self.leave_unassigned();
        let wall = sys::monotonic_ns().saturating_sub(self.began);
        self.report.host_steal_ns = wall
            .saturating_sub(self.report.idle_ns + self.report.away_ns)
            .saturating_sub(self.report.busy_ns);
        self.report
    }

    /// Runs a vCPU until the policy is to decide again. `None`: it is lost.
    fn serve(&mut self, mut turn: Turn) -> Option<Stopped> {
        loop {
            let (mut back, next) = self.run_once(turn)?;
            match next {
                Next::Continue => turn = back,
                Next::Stop { why, berth } => {
                    // On its way to its berth that is done there, and a doorbell is rung too often for it.
                    let sleeps = berth && !back.vcpu.kept_awake;
                    if !sleeps && why != Stop::Rang {
                        back.vcpu.limit_timer();
                    }
                    let hints = said(&back.vcpu, back.first);
                    let ran = self.charge();
                    return Some(Stopped {
                        vcpu: back.vcpu,
                        why,
                        berth,
                        hints,
                        ran,
                        host_took: self.take_unaccounted(ran),
                    });
                }
            }
        }
    }

    /// Puts back what stopped, and takes what the policy wants to run, however long that takes.
    /// `None`: the pool stops.
    fn next_turn(&mut self, mut stopped: Option<Stopped>) -> Option<Turn> {
        let pool = Arc::clone(&self.pool);
        let station = pool.station(self.cpu);
        let mut napped: Option<(Sleeper, NapEnd, Ns)> = None;
        loop {
            station.take();
            if !self.away {
                self.own_cpu.check(self.cpu, &pool);
            }
            self.report.decisions += 1;
            let mut state = pool.lock();
            let now = sys::monotonic_ns();
            self.away = !state.sched.online_cpus().contains(self.cpu);
            let mut may_nap = self.seam.naps() && !self.away;
            let mut sleeper = napped.take().and_then(|(sleeper, end, spent)| {
                may_nap &= end != NapEnd::NotHere;
                state
                    .sched
                    .charge_sleep(sleeper.0, CpuTime(spent), None, now);
                state.napped(sleeper, end == NapEnd::Woken, now)
            });
            let mut left = stopped
                .take()
                .map(|stopped| self.put_back(&mut state, stopped, now));
            let stopping = state.stopping;
            let picked = if stopping {
                None
            } else {
                state.pick(self.cpu, now)
            };
            let first = picked
                .as_ref()
                .map(|(vcpu, _)| state.member(vcpu.guest.number).first);
            // While the lock is held, so that nobody else runs it before it is said not to run.
            if let Some(left) = &left
                && picked
                    .as_ref()
                    .is_none_or(|(_, decision)| decision.curr != left.id)
            {
                left.show_stopped();
            }
            let mut storm = false;
            if let (Some((vcpu, decision)), Some(first)) = (&picked, first) {
                show(vcpu, decision, first);
                let same = left
                    .as_ref()
                    .is_some_and(|left| left.rang && left.id == decision.curr);
                if same && !decision.is_proxied() {
                    storm = state.member_mut(vcpu.guest.number).vain.count(now);
                }
            }
            // Timers are others' while this CPU is away.
            let timer = state.sched.next_timer().filter(|_| !self.away);
            sleeper = sleeper.or_else(|| left.as_mut()?.berth.take());
            // It stays here if there is nothing else to run: then nobody is handed anything, neither
            // now nor when it wakes.
            let nap = sleeper.take_if(|_| may_nap && picked.is_none() && !stopping);
            if let Some((id, _)) = &nap {
                state.naps(*id, self.cpu);
            }
            let after = state.after();
            drop(state);
            // Its guest may have ended, and is not to wait for the end of this executor's sleep.
            drop(left);
            pool.finish(after.with_berth(sleeper));
            if stopping {
                return None;
            }
            if let (Some((mut vcpu, decision)), Some(first)) = (picked, first) {
                if storm {
                    vcpu.print_notice(
                        "rings its doorbell for nothing; the time that takes is its own",
                    );
                }
                let until = decision.until;
                return Some(Turn {
                    vcpu,
                    decision,
                    first,
                    until,
                });
            }
            match nap {
                Some(sleeper) => napped = Some(self.nap_until(timer, sleeper)),
                None => self.sleep_until(timer),
            }
        }
    }

    fn put_back(&self, state: &mut State, stopped: Stopped, now: Ns) -> Left {
        let Stopped {
            mut vcpu,
            mut why,
            mut berth,
            hints,
            ran,
            host_took,
        } = stopped;
        let (guest, index, id) = (Arc::clone(&vcpu.guest), vcpu.index, state.id(&vcpu));
        if berth {
            let may = state.sched.may_sleep(id, now);
            vcpu.kept_awake = may.is_err();
            if let Err(again) = may {
                // Its guest's interrupts wake too many at the wrong moment: they are looked for later.
                (why, berth) = (Stop::Halted(Some(again)), false);
            }
        }
        match why {
            Stop::Halted(_) if berth => vcpu.gaps.sleeps(),
            Stop::Halted(until) => vcpu.gaps.idles(until),
            _ => vcpu.gaps.ran(ran),
        }
        state.sched.stop(
            self.cpu,
            if guest.has_ended() { Stop::Ended } else { why },
            hints,
            CpuTime(ran),
            now,
        );
        state.sched.host_took(id, CpuTime(host_took));
        state.charge_console(&vcpu, now);
        let berth = state.keep(id, vcpu, berth);
        let (rang, preempted) = (why == Stop::Rang, why == Stop::Preempted);
        Left {
            id,
            guest,
            index,
            rang,
            preempted,
            asleep: matches!(why, Stop::Halted(_) | Stop::Ended),
            berth,
        }
    }

    /// Nothing to run: sleeps until a kick or the policy's next timer.
    fn sleep_until(&mut self, timer: Option<Ns>) {
        self.leave_unassigned();
        let from = sys::monotonic_ns();
        let timeout = timer.map(|at| Duration::from_nanos(at.saturating_sub(from).max(1)));
        self.pool.station(self.cpu).sleep(timeout);
        signal::forget_missed();
        self.slept(from);
        // Waking up is for who runs next, if anybody does.
    }

    /// Nothing to run but who has halted here: both sleep until it wakes, a kick or the policy's next
    /// timer.
    fn nap_until(&mut self, timer: Option<Ns>, (id, mut vcpu): Sleeper) -> (Sleeper, NapEnd, Ns) {
        self.leave_unassigned();
        let from = sys::monotonic_ns();
        let end = self.seam.nap(&mut vcpu, timer, self.pool.station(self.cpu));
        signal::forget_missed();
        self.slept(from);
        let spent = self.charge();
        if vcpu.guest.has_ended() {
            self.pool.retire(&vcpu.guest);
        }
        ((id, vcpu), end, spent)
    }

    /// It has slept since `from`.
    fn slept(&mut self, from: Ns) {
        self.seen_to = sys::monotonic_ns();
        let slept = self.seen_to.saturating_sub(from);
        match self.away {
            true => self.report.away_ns += slept,
            false => self.report.idle_ns += slept,
        }
    }

    /// Time since all was accounted for in which no `spent` CPU time was used: the host gave it to others.
    fn take_unaccounted(&mut self, spent: Ns) -> Ns {
        let now = sys::monotonic_ns();
        let wall = now.saturating_sub(std::mem::replace(&mut self.seen_to, now));
        wall.saturating_sub(spent)
    }

    /// CPU time since the last charge, for which a guest pays.
    fn charge(&mut self) -> Ns {
        let spent = self.take_spent();
        self.report.busy_ns += spent;
        self.tell_times();
        spent
    }

    /// Nobody pays for the CPU time since the last charge: it led to nothing that runs.
    fn leave_unassigned(&mut self) {
        self.report.unassigned_ns += self.take_spent();
        self.tell_times();
    }

    fn take_spent(&mut self) -> Ns {
        let now = sys::thread_cpu_ns();
        let own = now.saturating_sub(std::mem::replace(&mut self.charged_to, now));
        own + std::mem::take(&mut self.elsewhere)
    }

    fn tell_times(&self) {
        if let Some(gauges) = &self.tells.gauges {
            let wall = sys::monotonic_ns().saturating_sub(self.began);
            let ExecutorReport {
                busy_ns,
                idle_ns,
                away_ns,
                decisions,
                ..
            } = self.report;
            let wall = wall.saturating_sub(away_ns);
            gauges.account(wall, busy_ns, idle_ns, decisions);
        }
    }

    fn run_once(&mut self, turn: Turn) -> Option<(Turn, Next)> {
        let Turn {
            vcpu,
            decision,
            first,
            until,
        } = turn;
        let guest = Arc::clone(&vcpu.guest);
        let index = vcpu.index;
        let station = self.pool.station(self.cpu);
        let bounded = if self.seam.sees_halts() {
            until
        } else {
            let poll = sys::monotonic_ns().saturating_add(HALT_POLL_NS);
            Some(until.map_or(poll, |until| until.min(poll)))
        };
        let Some(Ran {
            vcpu,
            exit,
            elsewhere_ns,
        }) = self.seam.run(vcpu, bounded, station)
        else {
            guest.end(GuestEnd::InternalError {
                vcpu: index,
                text: "the thread that ran it has failed".into(),
            });
            let ran = self.charge();
            self.pool.lock().lose(self.cpu, decision.curr, ran);
            self.pool.retire(&guest);
            return None;
        };
        self.elsewhere += elsewhere_ns;
        self.tells.exit(self.cpu, decision.curr, &exit);
        let mut turn = Turn {
            vcpu,
            decision,
            first,
            until,
        };
        let next = match exit {
            Exit::Handled | Exit::Debug => Next::Continue,
            Exit::Interrupted => self.interrupted(&mut turn),
            Exit::Doorbell(doorbell) => self.rang(&turn, doorbell),
            Exit::Halted => self.halted(),
            Exit::Ended => {
                self.pool.retire(&guest);
                Next::Stop {
                    why: Stop::Ended,
                    berth: false,
                }
            }
        };
        Some((turn, next))
    }

    /// A signal ended the run, or kept it from beginning: a kick, or the timer.
    fn interrupted(&mut self, turn: &mut Turn) -> Next {
        let now = sys::monotonic_ns();
        let kicked = self.pool.station(self.cpu).take();
        if !kicked && turn.until.is_none_or(|until| now < until) {
            return Next::Continue;
        }
        if let Some(until) = turn.until {
            self.crossing.came_out(until, now);
        }
        let hints = said(&turn.vcpu, turn.first);
        if hints.depth > 0 {
            let grace = {
                let mut state = self.pool.lock();
                if state.stopping {
                    None
                } else {
                    state.sched.defer(self.cpu, &hints, now)
                }
            };
            if let Some(grace) = grace {
                let donated = if turn.decision.is_proxied() {
                    RING_DONATED
                } else {
                    0
                };
                ask_to_ring(turn, RING_DEFER | donated);
                let ways = self.crossing.before_release(hints.wait.is_some());
                turn.until = Some(grace.saturating_add(ways));
                return Next::Continue;
            }
        }
        Next::Stop {
            why: Stop::Preempted,
            berth: false,
        }
    }

    fn halted(&self) -> Next {
        if self.berths {
            Next::Stop {
                why: Stop::Halted(None),
                berth: true,
            }
        } else {
            // Nobody tells when it wakes: look again soon.
            let again = sys::monotonic_ns().saturating_add(HALT_POLL_NS);
            Next::Stop {
                why: Stop::Halted(Some(again)),
                berth: false,
            }
        }
    }

    fn rang(&mut self, turn: &Turn, doorbell: Doorbell) -> Next {
        let stop = |why| Next::Stop { why, berth: false };
        match doorbell {
            Doorbell::Wait => stop(Stop::Rang),
            Doorbell::Release { to } => {
                let handed = turn.vcpu.guest.hints.handed_lock(turn.vcpu.index);
                let mut state = self.pool.lock();
                let now = sys::monotonic_ns();
                let to = to.and_then(|to| state.member(turn.vcpu.guest.number).vcpu(to));
                if let (Some(lock), Some(to)) = (handed, to) {
                    state.sched.hand_over(self.cpu, lock, to, now);
                    let after = state.after();
                    drop(state);
                    self.pool.finish(after);
                    return Next::Continue;
                }
                state.sched.release(self.cpu, to, now);
                stop(Stop::Rang)
            }
            Doorbell::Idle => stop(Stop::Halted(wake_time(&turn.vcpu))),
            Doorbell::Wake { target } => {
                let after = {
                    let mut state = self.pool.lock();
                    match state.member(turn.vcpu.guest.number).vcpu(target) {
                        Some(target) => state.wake(self.cpu, target, sys::monotonic_ns()),
                        None => return Next::Continue,
                    }
                };
                // If this CPU is to look again, the kick keeps it out of the guest.
                self.pool.finish(after);
                Next::Continue
            }
        }
    }
}

/// When an idle vCPU wants to wake, in the policy's time.
fn wake_time(vcpu: &Vcpu) -> Option<Ns> {
    let tsc = vcpu.guest.hints.idle_until_tsc(vcpu.index);
    (tsc != 0).then(|| vcpu.guest.clock.monotonic_at(tsc))
}

/// Tells the guest, before it runs, that it runs, and on whose budget.
fn show(vcpu: &Vcpu, decision: &Decision, first: u32) {
    let hints = &vcpu.guest.hints;
    hints.set_running(vcpu.index, true);
    vcpu.guest.steal.set_preempted(vcpu.index, false);
    if decision.is_proxied() {
        hints.set_ring(
            vcpu.index,
            RING_DONATED,
            decision.lock,
            decision.donor.0 - first,
        );
    } else {
        hints.set_ring(vcpu.index, 0, 0, 0);
    }
}

fn ask_to_ring(turn: &Turn, bits: u32) {
    let donor = turn.decision.donor.0 - turn.first;
    turn.vcpu
        .guest
        .hints
        .set_ring(turn.vcpu.index, bits, turn.decision.lock, donor);
}
