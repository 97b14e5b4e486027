//! From records to the picture: what each decision of the policy changes on which track.

use std::io::{self, Write};
use std::sync::Arc;

use vcpu_sched::{CpuId, Event, Ns, VcpuId};

use super::canvas::Canvas;
use super::joined_names::JoinedNames;
use super::packets::{Mark, Packets, Value};
use super::record::{RecordedEvent, TraceRecord};
use super::tracks::{self, POOL, VcpuTracks};
use super::vcpu_track::ScSlice;
use crate::exit_kind::ExitKind;
use crate::names::Names;

/// Draws records into a trace.
#[derive(Debug)]
pub(super) struct TracePicture<W> {
    canvas: Canvas<W>,
    joined: Arc<JoinedNames>,
    /// Arrows drawn so far; the last one's number.
    flows: u64,
    /// Records known to be lost.
    lost: u64,
}

impl<W: Write> TracePicture<W> {
    /// A picture of the vCPUs in `names`, and later of those whose names are left in `joined`.
    pub(super) fn new(
        packets: Packets<W>,
        names: &Names,
        joined: Arc<JoinedNames>,
        now: Ns,
    ) -> Self {
        Self {
            canvas: Canvas::new(packets, names, now),
            joined,
            flows: 0,
            lost: 0,
        }
    }

    /// Draws a record. Those of the policy come in the order of time; exits may come later.
    pub(super) fn draw(&mut self, record: TraceRecord) {
        match record.event {
            RecordedEvent::Exit { cpu, vcpu, kind } => self.exit(record.at, cpu, vcpu, kind),
            RecordedEvent::Policy(event) => {
                self.canvas.advance(record.at);
                self.decision(event);
            }
            RecordedEvent::Joined { vcpu, number } => {
                self.canvas.advance(record.at);
                if let Some(joined) = self.joined.take(number) {
                    self.canvas.joined(vcpu, VcpuTracks(number), &joined);
                }
            }
            RecordedEvent::Gone(vcpu) => {
                self.canvas.advance(record.at);
                self.canvas
                    .change(vcpu, |v| (v.gone, v.throttled) = (true, false));
            }
            RecordedEvent::Lost(records) => {
                self.canvas.advance(record.at);
                self.gap(records);
            }
        }
    }

    /// Ends every slice, and the trace. `lost` is the number of records that all rings together dropped.
    pub(super) fn finish(mut self, lost: u64) -> (W, io::Result<()>) {
        self.canvas.settle();
        if lost > self.lost {
            self.gap(lost - self.lost);
        }
        self.canvas.finish()
    }

    fn decision(&mut self, event: Event) {
        match event {
            Event::Pick {
                cpu,
                donor,
                curr,
                chain,
            } => self.pick(cpu, donor, curr, chain),
            Event::Stop {
                cpu,
                donor,
                curr,
                ran,
            } => self.stop(cpu, donor, curr, ran),
            Event::Wake(vcpu) => self.canvas.change(vcpu, |v| v.halted = false),
            Event::Halt(vcpu) => self.canvas.change(vcpu, |v| v.halted = true),
            Event::Throttle(vcpu, until) => self.throttle(vcpu, until),
            Event::Replenish(vcpu) => {
                self.canvas.change(vcpu, |v| v.throttled = false);
                self.canvas.end_sc(vcpu, ScSlice::Throttled);
            }
            Event::Defer { curr, .. } => self.canvas.begin_deferral(curr),
            Event::EdgeOn {
                waiter,
                holder,
                is_suspicion,
            } => self.edge(waiter, holder, is_suspicion),
            other => self.mark(other),
        }
    }

    /// Decisions that are a mark on a track.
    fn mark(&mut self, event: Event) {
        let (track, name, category) = match event {
            Event::EdgeOff(waiter) => (
                self.canvas.tracks(waiter).vcpu(),
                "waits no more".to_owned(),
                "edge",
            ),
            Event::Park { vcpu, on } => {
                let on = self.canvas.name(on);
                let name = format!("set aside until {on} stops or wakes");
                (self.canvas.tracks(vcpu).budget(), name, "claim")
            }
            Event::Miss(vcpu) => (
                self.canvas.tracks(vcpu).budget(),
                "deadline missed".to_owned(),
                "claim",
            ),
            Event::Kick(cpu) => (tracks::cpu(cpu), "kick".to_owned(), "kick"),
            Event::CpuOffline(cpu) => (tracks::cpu(cpu), "leaves the pool".to_owned(), "pool"),
            Event::CpuOnline(cpu) => (tracks::cpu(cpu), "is back in the pool".to_owned(), "pool"),
            Event::InForce(vcpu, reservation) => {
                let (budget, period) = (reservation.budget(), reservation.period());
                let name = format!("reservation: {budget} ns in {period} ns");
                (self.canvas.tracks(vcpu).budget(), name, "claim")
            }
            Event::ReservationChanged(vcpu, reservation) => {
                let (budget, period) = (reservation.budget(), reservation.period());
                let name = format!("new reservation: {budget} ns in {period} ns");
                (self.canvas.tracks(vcpu).budget(), name, "claim")
            }
            Event::WeightChanged(vcpu, weight) => (
                self.canvas.tracks(vcpu).budget(),
                format!("weight: {weight}"),
                "claim",
            ),
            Event::AllowedChanged(vcpu) => (
                self.canvas.tracks(vcpu).vcpu(),
                "other host CPUs".to_owned(),
                "pool",
            ),
            Event::Paused(guest) => (POOL, format!("{guest} is paused"), "pool"),
            Event::Resumed(guest) => (POOL, format!("{guest} is resumed"), "pool"),
            // The track of an idle CPU is empty anyway, and those of the vCPUs of a guest that is removed end.
            _ => return,
        };
        self.canvas.instant(track, &name, category);
    }

    /// `waiter` has published that it waits for `holder`, or is suspected to wait for it.
    fn edge(&mut self, waiter: VcpuId, holder: VcpuId, is_suspicion: bool) {
        let verb = match is_suspicion {
            true => "suspects",
            false => "waits for",
        };
        self.canvas.change(waiter, |v| v.suspects = is_suspicion);
        let name = format!("{verb} {}", self.canvas.name(holder));
        self.canvas
            .instant(self.canvas.tracks(waiter).vcpu(), &name, "edge");
    }

    fn pick(&mut self, cpu: CpuId, donor: VcpuId, curr: VcpuId, chain: u32) {
        self.canvas.end_cpu(cpu, &[]);
        self.canvas
            .change(curr, |v| (v.runs_on, v.halted) = (Some(donor), false));
        let (donor_name, curr_name) = (self.canvas.name(donor), self.canvas.name(curr));
        let donor_fact = ("donor", Value::Text(&donor_name));
        let chain_fact = ("chain", Value::Number(u64::from(chain)));
        if donor == curr {
            self.canvas.show(curr, None);
            let mark = Mark {
                name: &curr_name,
                category: "run",
                facts: &[donor_fact],
                ..Mark::default()
            };
            self.canvas.begin_cpu(cpu, mark);
        } else {
            let flow = self.begin_carrying(donor, curr, &curr_name);
            self.canvas.show(curr, Some(flow));
            let mark = Mark {
                name: &format!("{curr_name} {}", self.canvas.budget_that_carries(donor)),
                category: "proxied",
                flow_end: Some(flow),
                facts: &[donor_fact, chain_fact],
                ..Mark::default()
            };
            self.canvas.begin_cpu(cpu, mark);
        }
    }

    /// The scheduling context of `donor` carries `curr` from now on. Returns a new arrow, which begins at that
    /// scheduling context. It is to pass `curr` and to end at the CPU.
    fn begin_carrying(&mut self, donor: VcpuId, curr: VcpuId, curr_name: &str) -> u64 {
        self.flows += 1;
        self.canvas.change(donor, |v| v.carries = Some(curr));
        let mark = Mark {
            name: &format!("pays for {curr_name}"),
            category: "claim",
            flow: Some(self.flows),
            ..Mark::default()
        };
        self.canvas.begin_sc(donor, ScSlice::Carries, mark);
        self.canvas.show(donor, None);
        self.flows
    }

    fn stop(&mut self, cpu: CpuId, donor: VcpuId, curr: VcpuId, ran: Ns) {
        self.canvas.end_deferral(curr);
        self.canvas.end_cpu(cpu, &[("ran_ns", Value::Number(ran))]);
        self.canvas.change(curr, |v| v.runs_on = None);
        if donor != curr {
            self.canvas.change(donor, |v| v.carries = None);
            self.canvas.end_sc(donor, ScSlice::Carries);
            self.canvas.donate(donor, ran);
        }
    }

    fn throttle(&mut self, vcpu: VcpuId, until: Ns) {
        self.canvas.change(vcpu, |v| v.throttled = true);
        let mark = Mark {
            name: "throttled",
            category: "claim",
            facts: &[("until_ns", Value::Number(until))],
            ..Mark::default()
        };
        self.canvas.begin_sc(vcpu, ScSlice::Throttled, mark);
    }

    fn exit(&mut self, at: Ns, cpu: CpuId, vcpu: VcpuId, kind: ExitKind) {
        let vcpu = self.canvas.name(vcpu);
        let mark = Mark {
            name: kind.name(),
            category: "exit",
            facts: &[("vcpu", Value::Text(&vcpu))],
            ..Mark::default()
        };
        self.canvas.instant_at(at, tracks::cpu(cpu), mark);
    }

    /// Records are missing, so nothing that went on before is known to go on.
    fn gap(&mut self, records: u64) {
        self.lost = self.lost.saturating_add(records);
        self.canvas.end_all();
        for id in self.canvas.ids() {
            self.canvas.change(id, |v| {
                (v.runs_on, v.carries, v.suspects) = (None, None, false)
            });
        }
        let mark = Mark {
            name: "records lost",
            category: "lost",
            facts: &[("records", Value::Number(records))],
            ..Mark::default()
        };
        self.canvas.instant_at(self.canvas.now(), POOL, mark);
    }
}

#[cfg(test)]
mod tests;
