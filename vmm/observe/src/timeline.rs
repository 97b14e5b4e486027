//! A stretch of the policy's decisions as text: who runs on each host CPU, on whose budget, and
//! what each vCPU does meanwhile. For real runs and for simulated ones, which tell the same events.
//! [`lanes`] has the same as numbers.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;

use baton_config::units::readable_ns;
use vcpu_sched::{Event, Ns, VcpuId};

use lanes::{Busy, Lanes, Span, State};

pub mod lanes;

/// Columns of a lane.
const WIDTH: usize = 96;

fn sign(state: State) -> char {
    match state {
        State::Halted => ' ',
        State::Waits => '.',
        State::Throttled => '-',
        State::Runs => '#',
        State::Pays => '$',
        State::Carried => '@',
    }
}

const LEGEND: &str = "# runs on its own budget   @ runs on another's   $ its budget carries another\n\
                      . wants to run   - throttled   (blank) halted\n";

/// Draws `events` between `from` and `to`; `name` gives what stands before a vCPU's lane.
#[must_use]
pub fn render(events: &[(Ns, Event)], from: Ns, to: Ns, name: impl Fn(VcpuId) -> String) -> String {
    let lanes = Lanes::of(events, from, to.max(from + 1));
    let picture = Picture {
        from,
        to: to.max(from + 1),
    };
    picture.draw(&lanes, name)
}

/// A stretch of time in columns.
struct Picture {
    from: Ns,
    to: Ns,
}

impl Picture {
    /// The columns of a span: at least one.
    fn columns<T>(&self, span: &Span<T>) -> Range<usize> {
        let column = |at: Ns| {
            let past = u128::from(at.clamp(self.from, self.to) - self.from);
            (past * WIDTH as u128 / u128::from(self.to - self.from)) as usize
        };
        let first = column(span.from).min(WIDTH - 1);
        first..column(span.to).max(first + 1)
    }

    fn cpu(&self, spans: &[Span<Busy>], sign: impl Fn(&Busy) -> char) -> String {
        let mut lane = vec![' '; WIDTH];
        for span in spans {
            lane[self.columns(span)].fill(sign(&span.what));
        }
        lane.into_iter().collect()
    }

    fn vcpu(&self, spans: &[Span<State>]) -> String {
        let mut lane = vec![State::Halted; WIDTH];
        for span in spans {
            for state in &mut lane[self.columns(span)] {
                *state = (*state).max(span.what);
            }
        }
        lane.into_iter().map(sign).collect()
    }

    fn draw(&self, lanes: &Lanes, name: impl Fn(VcpuId) -> String) -> String {
        let mut text = String::new();
        let symbols: BTreeMap<VcpuId, char> = lanes
            .vcpus
            .keys()
            .copied()
            .zip(('0'..='9').chain('a'..='z').chain('A'..='Z'))
            .collect();
        let symbol = |vcpu: &VcpuId| symbols.get(vcpu).copied().unwrap_or('?');
        let labels = lanes
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
        for (cpu, spans) in &lanes.cpus {
            let runs = self.cpu(spans, |busy| symbol(&busy.run));
            let pays = self.cpu(spans, |busy| symbol(&busy.donor));
            let label = format!("cpu{cpu} runs");
            let _ = writeln!(text, "{label:labels$} |{runs}|");
            let _ = writeln!(text, "{:labels$} |{pays}|", "     pays");
        }
        for (vcpu, spans) in &lanes.vcpus {
            let label = format!("{} = {}", symbol(vcpu), name(*vcpu));
            let _ = writeln!(text, "{label:labels$} |{}|", self.vcpu(spans));
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
                    curr: holder,
                    chain: 0,
                },
            ),
            (
                24,
                Event::Stop {
                    cpu,
                    donor: holder,
                    curr: holder,
                    ran: 24,
                },
            ),
            (24, Event::Throttle(holder, 1000)),
            (
                24,
                Event::Pick {
                    cpu,
                    donor: waiter,
                    curr: waiter,
                    chain: 0,
                },
            ),
            (
                48,
                Event::Stop {
                    cpu,
                    donor: waiter,
                    curr: waiter,
                    ran: 24,
                },
            ),
            (
                48,
                Event::Pick {
                    cpu,
                    donor: waiter,
                    curr: holder,
                    chain: 1,
                },
            ),
            (
                72,
                Event::Stop {
                    cpu,
                    donor: waiter,
                    curr: holder,
                    ran: 24,
                },
            ),
            (
                72,
                Event::Pick {
                    cpu,
                    donor: waiter,
                    curr: waiter,
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
        let runs = Event::Pick {
            cpu: CpuId(0),
            donor: VcpuId(0),
            curr: VcpuId(0),
            chain: 0,
        };
        let text = render(&[(0, runs)], 5, 5, |v| v.to_string());
        let lane = format!("|{}|", "0".repeat(WIDTH));
        assert!(text.contains(&lane), "it runs in all of it: {text}");
        let events: Vec<_> = (0..200)
            .map(|v| (u64::from(v), Event::Wake(VcpuId(v))))
            .collect();
        assert_eq!(
            render(&events, 0, 100, |v| v.to_string()).lines().count(),
            203
        );
    }
}
