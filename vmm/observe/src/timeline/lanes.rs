//! From the policy's events to lanes: what each host CPU runs and what each vCPU does, from when to
//! when. The text and the SVG of a timeline show these.

use std::collections::BTreeMap;

use vcpu_sched::{Event, Ns, VcpuId};

/// What a vCPU does, in the order in which one hides another where there is no room for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It has nothing to run.
    Halted,
    /// It wants to run.
    Waits,
    /// It wants to run, and its budget is used up.
    Throttled,
    /// It runs on its own budget.
    Runs,
    /// It does not run, and its budget carries another.
    Pays,
    /// It runs on another's budget.
    Carried,
}

/// What a host CPU does while it runs somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    /// Whose budget pays.
    pub donor: VcpuId,
    /// Who runs.
    pub run: VcpuId,
}

/// A stretch of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span<T> {
    /// When it begins, ns.
    pub from: Ns,
    /// When it ends, ns; the same time for what was over at once.
    pub to: Ns,
    /// What it shows.
    pub what: T,
}

/// The lanes between two times, each in the order of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lanes {
    /// By index of the host CPU in the pool; nothing where it is idle.
    pub cpus: BTreeMap<u32, Vec<Span<Busy>>>,
    /// By vCPU; without gaps from its first event on.
    pub vcpus: BTreeMap<VcpuId, Vec<Span<State>>>,
}

impl Lanes {
    /// What `events` tell about the time between `from` and `to`, ns. Earlier events tell how things
    /// stood at `from`.
    #[must_use]
    pub fn of(events: &[(Ns, Event)], from: Ns, to: Ns) -> Self {
        let mut weaver = Weaver {
            from,
            to,
            vcpus: BTreeMap::new(),
            cpus: BTreeMap::new(),
            lanes: Self::default(),
        };
        for &(at, event) in events {
            weaver.hear(at, event);
        }
        weaver.close();
        weaver.lanes
    }
}

/// A vCPU as far as the events so far tell.
#[derive(Clone, Copy, Debug, Default)]
struct Vcpu {
    halted: bool,
    throttled: bool,
    runs: bool,
    carried: bool,
    pays: bool,
}

impl Vcpu {
    fn state(self) -> State {
        match self {
            Self { carried: true, .. } => State::Carried,
            Self { pays: true, .. } => State::Pays,
            Self { runs: true, .. } => State::Runs,
            Self {
                throttled: true, ..
            } => State::Throttled,
            Self { halted: true, .. } => State::Halted,
            _ => State::Waits,
        }
    }
}

struct Weaver {
    from: Ns,
    to: Ns,
    /// What each vCPU does, and since when.
    vcpus: BTreeMap<VcpuId, (Vcpu, Ns)>,
    /// The same for each CPU.
    cpus: BTreeMap<u32, (Option<Busy>, Ns)>,
    lanes: Lanes,
}

impl Weaver {
    /// The part of a stretch that lies between the two times, if any does.
    fn span<T>(&self, start: Ns, end: Ns, what: T) -> Option<Span<T>> {
        (end > self.from && start < self.to).then(|| Span {
            from: start.max(self.from),
            to: end.min(self.to),
            what,
        })
    }

    fn change(&mut self, vcpu: VcpuId, at: Ns, change: impl FnOnce(&mut Vcpu)) {
        let from = self.from;
        let (now, since) = self.vcpus.entry(vcpu).or_insert((Vcpu::default(), from));
        let (state, start) = (now.state(), *since);
        change(now);
        *since = at;
        let span = self.span(start, at, state);
        self.lanes.vcpus.entry(vcpu).or_default().extend(span);
    }

    fn cpu(&mut self, cpu: u32, at: Ns, next: Option<Busy>) {
        let now = self.cpus.insert(cpu, (next, at));
        let (busy, start) = now.unwrap_or((None, at));
        let span = busy.and_then(|busy| self.span(start, at, busy));
        self.lanes.cpus.entry(cpu).or_default().extend(span);
    }

    fn hear(&mut self, at: Ns, event: Event) {
        match event {
            Event::Pick {
                cpu,
                donor,
                curr: run,
                ..
            } => {
                self.cpu(cpu.0, at, Some(Busy { donor, run }));
                self.change(run, at, |v| {
                    (v.runs, v.carried, v.halted) = (true, donor != run, false);
                });
                if donor != run {
                    self.change(donor, at, |v| v.pays = true);
                }
            }
            Event::Stop {
                cpu,
                donor,
                curr: run,
                ..
            } => {
                self.cpu(cpu.0, at, None);
                self.change(run, at, |v| (v.runs, v.carried) = (false, false));
                self.change(donor, at, |v| v.pays = false);
            }
            Event::Wake(vcpu) => self.change(vcpu, at, |v| v.halted = false),
            Event::Halt(vcpu) => self.change(vcpu, at, |v| v.halted = true),
            Event::Throttle(vcpu, _) => self.change(vcpu, at, |v| v.throttled = true),
            Event::Replenish(vcpu) => self.change(vcpu, at, |v| v.throttled = false),
            _ => {}
        }
    }

    /// Carries the last states on to the end.
    fn close(&mut self) {
        let to = self.to;
        for vcpu in self.vcpus.keys().copied().collect::<Vec<_>>() {
            self.change(vcpu, to, |_| {});
        }
        for cpu in self.cpus.keys().copied().collect::<Vec<_>>() {
            self.cpu(cpu, to, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vcpu_sched::CpuId;

    const CPU: CpuId = CpuId(0);
    const HOLDER: VcpuId = VcpuId(0);
    const WAITER: VcpuId = VcpuId(1);

    fn pick(donor: VcpuId, run: VcpuId) -> Event {
        Event::Pick {
            cpu: CPU,
            donor,
            curr: run,
            chain: 0,
        }
    }

    fn stop(donor: VcpuId, run: VcpuId) -> Event {
        Event::Stop {
            cpu: CPU,
            donor,
            curr: run,
            ran: 0,
        }
    }

    #[test]
    fn lanes_are_cut_to_the_window_and_know_what_came_before() {
        let events = [
            (10, pick(HOLDER, HOLDER)),
            (30, stop(HOLDER, HOLDER)),
            (30, Event::Throttle(HOLDER, 90)),
            (40, pick(WAITER, HOLDER)),
            (60, stop(WAITER, HOLDER)),
        ];
        let lanes = Lanes::of(&events, 20, 50);
        let spans = |of: &[(Ns, Ns, State)]| -> Vec<Span<State>> {
            let span = |&(from, to, what)| Span { from, to, what };
            of.iter().map(span).collect()
        };
        let moving = |spans: &[Span<State>]| -> Vec<Span<State>> {
            spans.iter().filter(|s| s.from < s.to).copied().collect()
        };
        assert_eq!(
            moving(&lanes.vcpus[&HOLDER]),
            spans(&[
                (20, 30, State::Runs),
                (30, 40, State::Throttled),
                (40, 50, State::Carried)
            ])
        );
        assert_eq!(
            moving(&lanes.vcpus[&WAITER]),
            spans(&[(20, 40, State::Waits), (40, 50, State::Pays)])
        );
        let busy = |from, to, donor| Span {
            from,
            to,
            what: Busy { donor, run: HOLDER },
        };
        assert_eq!(lanes.cpus[&0], [busy(20, 30, HOLDER), busy(40, 50, WAITER)]);
    }

    #[test]
    fn a_window_that_nothing_reaches_has_no_spans() {
        let events = [(10, pick(HOLDER, HOLDER)), (30, stop(HOLDER, HOLDER))];
        let lanes = Lanes::of(&events, 5, 5);
        assert!(lanes.cpus[&0].is_empty() && lanes.vcpus[&HOLDER].is_empty());
        assert_eq!(Lanes::of(&[], 0, 100), Lanes::default());
    }
}
