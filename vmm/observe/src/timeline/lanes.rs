//! From the policy's events to lanes: what each host CPU runs and what each vCPU does, and when. The text and
//! the SVG of a timeline show these.

use std::collections::BTreeMap;

use vcpu_sched::{Event, Ns, VcpuId};

/// What a vCPU does. Where there is room for one state only, the greatest is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LaneState {
    /// It has nothing to run.
    Halted,
    /// It is ready to run.
    Runnable,
    /// It is ready to run, and its budget is used up.
    Throttled,
    /// It runs on its own budget.
    Runs,
    /// It does not run, and its budget carries another vCPU.
    Carries,
    /// It runs on another vCPU's budget.
    Proxied,
}

/// What a host CPU runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    /// The vCPU whose budget is charged.
    pub donor: VcpuId,
    /// The vCPU that runs.
    pub curr: VcpuId,
}

/// A stretch of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span<T> {
    /// When it begins, ns.
    pub from: Ns,
    /// When it ends, ns. Equal to `from` if it was over at once.
    pub to: Ns,
    /// What it shows.
    pub what: T,
}

/// The lanes between two times, each in the order of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lanes {
    /// By index of the host CPU in the pool. No span covers the time in which it is idle.
    pub cpus: BTreeMap<u32, Vec<Span<Busy>>>,
    /// By vCPU, without gaps from its first event on.
    pub vcpus: BTreeMap<VcpuId, Vec<Span<LaneState>>>,
}

impl Lanes {
    /// What `events` did between `from` and `to`, ns. Earlier events give the state at `from`.
    #[must_use]
    pub fn of(events: &[(Ns, Event)], from: Ns, to: Ns) -> Self {
        let mut builder = LaneBuilder {
            from,
            to,
            vcpus: BTreeMap::new(),
            cpus: BTreeMap::new(),
            lanes: Self::default(),
        };
        for &(at, event) in events {
            builder.apply(at, event);
        }
        builder.close();
        builder.lanes
    }
}

/// The state of a vCPU after the events so far.
#[derive(Clone, Copy, Debug, Default)]
struct VcpuLane {
    halted: bool,
    throttled: bool,
    runs: bool,
    proxied: bool,
    carries: bool,
}

impl VcpuLane {
    fn state(self) -> LaneState {
        match self {
            Self { proxied: true, .. } => LaneState::Proxied,
            Self { carries: true, .. } => LaneState::Carries,
            Self { runs: true, .. } => LaneState::Runs,
            Self {
                throttled: true, ..
            } => LaneState::Throttled,
            Self { halted: true, .. } => LaneState::Halted,
            _ => LaneState::Runnable,
        }
    }
}

/// Builds lanes, event by event.
struct LaneBuilder {
    from: Ns,
    to: Ns,
    /// What each vCPU does, and since when, ns.
    vcpus: BTreeMap<VcpuId, (VcpuLane, Ns)>,
    /// The same for each CPU.
    cpus: BTreeMap<u32, (Option<Busy>, Ns)>,
    lanes: Lanes,
}

impl LaneBuilder {
    /// The part of a stretch that lies between `from` and `to`, if there is one.
    fn span<T>(&self, start: Ns, end: Ns, what: T) -> Option<Span<T>> {
        (end > self.from && start < self.to).then(|| Span {
            from: start.max(self.from),
            to: end.min(self.to),
            what,
        })
    }

    fn change(&mut self, vcpu: VcpuId, at: Ns, change: impl FnOnce(&mut VcpuLane)) {
        let from = self.from;
        let (now, since) = self
            .vcpus
            .entry(vcpu)
            .or_insert((VcpuLane::default(), from));
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

    fn apply(&mut self, at: Ns, event: Event) {
        match event {
            Event::Pick {
                cpu, donor, curr, ..
            } => {
                self.cpu(cpu.0, at, Some(Busy { donor, curr }));
                self.change(curr, at, |v| {
                    (v.runs, v.proxied, v.halted) = (true, donor != curr, false);
                });
                if donor != curr {
                    self.change(donor, at, |v| v.carries = true);
                }
            }
            Event::Stop {
                cpu, donor, curr, ..
            } => {
                self.cpu(cpu.0, at, None);
                self.change(curr, at, |v| (v.runs, v.proxied) = (false, false));
                self.change(donor, at, |v| v.carries = false);
            }
            Event::Wake(vcpu) => self.change(vcpu, at, |v| v.halted = false),
            Event::Halt(vcpu) => self.change(vcpu, at, |v| v.halted = true),
            Event::Throttle(vcpu, _) => self.change(vcpu, at, |v| v.throttled = true),
            Event::Replenish(vcpu) => self.change(vcpu, at, |v| v.throttled = false),
            _ => {}
        }
    }

    /// Extends the last states to the end.
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

    fn pick(donor: VcpuId, curr: VcpuId) -> Event {
        Event::Pick {
            cpu: CPU,
            donor,
            curr,
            chain: 0,
        }
    }

    fn stop(donor: VcpuId, curr: VcpuId) -> Event {
        Event::Stop {
            cpu: CPU,
            donor,
            curr,
            ran: 0,
        }
    }

    #[test]
    fn lanes_are_cut_to_the_stretch_and_begin_with_what_came_before() {
        let events = [
            (10, pick(HOLDER, HOLDER)),
            (30, stop(HOLDER, HOLDER)),
            (30, Event::Throttle(HOLDER, 90)),
            (40, pick(WAITER, HOLDER)),
            (60, stop(WAITER, HOLDER)),
        ];
        let lanes = Lanes::of(&events, 20, 50);
        let spans = |of: &[(Ns, Ns, LaneState)]| -> Vec<Span<LaneState>> {
            let span = |&(from, to, what)| Span { from, to, what };
            of.iter().map(span).collect()
        };
        let moving = |spans: &[Span<LaneState>]| -> Vec<Span<LaneState>> {
            spans.iter().filter(|s| s.from < s.to).copied().collect()
        };
        assert_eq!(
            moving(&lanes.vcpus[&HOLDER]),
            spans(&[
                (20, 30, LaneState::Runs),
                (30, 40, LaneState::Throttled),
                (40, 50, LaneState::Proxied)
            ])
        );
        assert_eq!(
            moving(&lanes.vcpus[&WAITER]),
            spans(&[(20, 40, LaneState::Runnable), (40, 50, LaneState::Carries)])
        );
        let busy = |from, to, donor| Span {
            from,
            to,
            what: Busy {
                donor,
                curr: HOLDER,
            },
        };
        assert_eq!(lanes.cpus[&0], [busy(20, 30, HOLDER), busy(40, 50, WAITER)]);
    }

    #[test]
    fn a_stretch_that_no_event_reaches_has_no_spans() {
        let events = [(10, pick(HOLDER, HOLDER)), (30, stop(HOLDER, HOLDER))];
        let lanes = Lanes::of(&events, 5, 5);
        assert!(lanes.cpus[&0].is_empty() && lanes.vcpus[&HOLDER].is_empty());
        assert_eq!(Lanes::of(&[], 0, 100), Lanes::default());
    }
}
