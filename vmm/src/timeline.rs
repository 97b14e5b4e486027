//! A stretch of the policy's decisions as text: who runs on each host CPU, on whose budget, and
//! what each vCPU does meanwhile. For real runs and for simulated ones, which tell the same events.

use std::collections::BTreeMap;
use std::fmt::Write;

use vcpu_sched::{Event, Ns, VcpuId};

use crate::summary::text::readable_ns;

/// Columns of a lane.
const WIDTH: usize = 96;

/// What a vCPU does, in the order in which one hides another within a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Halted,
    Waits,
    Throttled,
    Runs,
    Pays,
    Carried,
}

impl State {
    fn sign(self) -> char {
        match self {
            Self::Halted => ' ',
            Self::Waits => '.',
            Self::Throttled => '-',
            Self::Runs => '#',
            Self::Pays => '$',
            Self::Carried => '@',
        }
    }
}

const LEGEND: &str = "# runs on its own budget   @ runs on another's   $ its budget carries another\n\
                      . wants to run   - throttled   (blank) halted\n";

/// Draws `events` between `from` and `to`; `name` gives what stands before a vCPU's lane.
#[must_use]
pub fn render(events: &[(Ns, Event)], from: Ns, to: Ns, name: impl Fn(VcpuId) -> String) -> String {
    let mut picture = Picture::new(from, to);
    for &(at, event) in events {
        picture.hear(at, event);
    }
    picture.close();
    picture.draw(name)
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

/// Who pays and who runs, on a CPU that does run somebody.
type Busy = Option<(VcpuId, VcpuId)>;

struct Picture {
    from: Ns,
    to: Ns,
    /// What each vCPU does, since when, and its lane up to then.
    vcpus: BTreeMap<VcpuId, (Vcpu, Ns, Vec<State>)>,
    /// The same for each CPU.
    cpus: BTreeMap<u32, (Busy, Ns, Vec<Busy>)>,
}

impl Picture {
    fn new(from: Ns, to: Ns) -> Self {
        Self {
            from,
            to: to.max(from + 1),
            vcpus: BTreeMap::new(),
            cpus: BTreeMap::new(),
        }
    }

    /// The columns from one time to another; at least one if it begins within the picture.
    fn columns(&self, start: Ns, end: Ns) -> std::ops::Range<usize> {
        let column = |at: Ns| {
            let past = u128::from(at.clamp(self.from, self.to) - self.from);
            (past * WIDTH as u128 / u128::from(self.to - self.from)) as usize
        };
        if end <= self.from || start >= self.to {
            return 0..0;
        }
        let first = column(start).min(WIDTH - 1);
        first..column(end).max(first + 1)
    }

    fn change(&mut self, vcpu: VcpuId, at: Ns, change: impl FnOnce(&mut Vcpu)) {
        let from = self.from;
        let blank = || (Vcpu::default(), from, vec![State::Halted; WIDTH]);
        let &mut (now, since, _) = self.vcpus.entry(vcpu).or_insert_with(blank);
        let columns = self.columns(since, at);
        if let Some((vcpu, since, lane)) = self.vcpus.get_mut(&vcpu) {
            for sign in &mut lane[columns] {
                *sign = (*sign).max(now.state());
            }
            *since = at;
            change(vcpu);
        }
    }

    fn cpu(&mut self, cpu: u32, at: Ns, next: Busy) {
        let from = self.from;
        let &mut (now, since, _) = self
            .cpus
            .entry(cpu)
            .or_insert_with(|| (None, from, vec![None; WIDTH]));
        let columns = self.columns(since, at);
        if let Some((running, since, lane)) = self.cpus.get_mut(&cpu) {
            if now.is_some() {
                lane[columns].fill(now);
            }
            (*running, *since) = (next, at);
        }
    }

    fn hear(&mut self, at: Ns, event: Event) {
        match event {
            Event::Pick {
                cpu, donor, run, ..
            } => {
                self.cpu(cpu.0, at, Some((donor, run)));
                self.change(run, at, |v| {
                    (v.runs, v.carried, v.halted) = (true, donor != run, false);
                });
                if donor != run {
                    self.change(donor, at, |v| v.pays = true);
                }
            }
            Event::Stop {
                cpu, donor, run, ..
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

    fn draw(&self, name: impl Fn(VcpuId) -> String) -> String {
        let mut text = String::new();
        let symbols: BTreeMap<VcpuId, char> = self
            .vcpus
            .keys()
            .copied()
            .zip(('0'..='9').chain('a'..='z').chain('A'..='Z'))
            .collect();
        let symbol = |vcpu: &VcpuId| symbols.get(vcpu).copied().unwrap_or('?');
        let labels = self
            .vcpus
            .keys()
            .map(|&v| name(v).len() + 4)
            .max()
            .unwrap_or(0)
            .max(9);
        let scale = readable_ns((self.to - self.from) / WIDTH as u64);
        let _ = writeln!(
            text,
            "{:labels$} |{} from left to right, {scale} a column",
            "",
            readable_ns(self.to - self.from)
        );
        for (cpu, (_, _, lane)) in &self.cpus {
            let line = |who: fn(&(VcpuId, VcpuId)) -> &VcpuId| -> String {
                lane.iter()
                    .map(|cell| cell.as_ref().map_or(' ', |cell| symbol(who(cell))))
                    .collect()
            };
            let _ = writeln!(
                text,
                "{:labels$} |{}|",
                format!("cpu{cpu} runs"),
                line(|(_, run)| run)
            );
            let _ = writeln!(
                text,
                "{:labels$} |{}|",
                "     pays",
                line(|(donor, _)| donor)
            );
        }
        for (&vcpu, (_, _, lane)) in &self.vcpus {
            let label = format!("{} = {}", symbol(&vcpu), name(vcpu));
            let lane: String = lane.iter().map(|state| state.sign()).collect();
            let _ = writeln!(text, "{label:labels$} |{lane}|");
        }
        text.push_str(LEGEND);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vcpu_sched::CpuId;

    #[test]
    fn a_waiters_budget_carries_a_throttled_holder() {
        let (cpu, holder, waiter) = (CpuId(0), VcpuId(0), VcpuId(1));
        let events = [
            (
                0,
                Event::Pick {
                    cpu,
                    donor: holder,
                    run: holder,
                    chain: 0,
                },
            ),
            (
                24,
                Event::Stop {
                    cpu,
                    donor: holder,
                    run: holder,
                    ran: 24,
                },
            ),
            (24, Event::Throttle(holder, 1000)),
            (
                24,
                Event::Pick {
                    cpu,
                    donor: waiter,
                    run: waiter,
                    chain: 0,
                },
            ),
            (
                48,
                Event::Stop {
                    cpu,
                    donor: waiter,
                    run: waiter,
                    ran: 24,
                },
            ),
            (
                48,
                Event::Pick {
                    cpu,
                    donor: waiter,
                    run: holder,
                    chain: 1,
                },
            ),
            (
                72,
                Event::Stop {
                    cpu,
                    donor: waiter,
                    run: holder,
                    ran: 24,
                },
            ),
            (
                72,
                Event::Pick {
                    cpu,
                    donor: waiter,
                    run: waiter,
                    chain: 0,
                },
            ),
        ];
        let text = render(&events, 0, 96, |v| v.to_string());
        let lanes: Vec<&str> = text.lines().filter_map(|l| l.split('|').nth(1)).collect();
        let of = |c: &str| c.repeat(24);
        assert_eq!(
            lanes[1],
            format!("{}{}{}{}", of("0"), of("1"), of("0"), of("1"))
        );
        assert_eq!(
            lanes[2],
            format!("{}{}{}{}", of("0"), of("1"), of("1"), of("1"))
        );
        assert_eq!(
            lanes[3],
            format!("{}{}{}{}", of("#"), of("-"), of("@"), of("-"))
        );
        assert_eq!(
            lanes[4],
            format!("{}{}{}{}", of("."), of("#"), of("$"), of("#"))
        );
    }

    #[test]
    fn an_empty_stretch_and_many_vcpus_do_no_harm() {
        assert!(!render(&[], 5, 5, |v| v.to_string()).is_empty());
        let events: Vec<_> = (0..200)
            .map(|v| (u64::from(v), Event::Wake(VcpuId(v))))
            .collect();
        assert_eq!(
            render(&events, 0, 100, |v| v.to_string()).lines().count(),
            203
        );
    }
}
