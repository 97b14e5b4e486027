//! From records to slices: what each host CPU runs, what each vCPU and each claim does.
//!
//! A vCPU stops and is picked again at the same moment, most of the time. Its lane shows no gap
//! then: what follows from a stop is drawn only when time has moved on.

use std::io::{self, Write};

use vcpu_sched::{CpuId, Event, Ns, VcpuId};

use super::packets::{Facts, Mark, Packets, Value};
use super::record::{ExitKind, Record, What};
use super::tracks::{self, Names, POOL, RUNNABLE};

/// What a vCPU's lane shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Nothing,
    Halted,
    Runnable,
    Throttled,
    Pays(VcpuId),
    Runs,
    Carried(VcpuId),
}

/// What the lane of a vCPU's claim shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Idle,
    Pays,
    Throttled,
}

/// A vCPU as far as the records tell.
#[derive(Clone, Copy, Debug)]
struct Vcpu {
    halted: bool,
    throttled: bool,
    gone: bool,
    /// Runs, on this one's budget.
    on: Option<VcpuId>,
    /// Its claim carries this one.
    pays: Option<VcpuId>,
    deferred: bool,
    donated: Ns,
    shown: Shown,
    claim: Claim,
    /// The lane may be out of date.
    dirty: bool,
}

impl Vcpu {
    const NEW: Self = Self {
        halted: true,
        throttled: false,
        gone: false,
        on: None,
        pays: None,
        deferred: false,
        donated: 0,
        shown: Shown::Nothing,
        claim: Claim::Idle,
        dirty: false,
    };

    fn state(&self, id: VcpuId) -> Shown {
        match self {
            Self {
                on: Some(donor), ..
            } if *donor != id => Shown::Carried(*donor),
            Self { on: Some(_), .. } => Shown::Runs,
            Self { gone: true, .. } => Shown::Nothing,
            Self {
                pays: Some(run), ..
            } => Shown::Pays(*run),
            Self { halted: true, .. } => Shown::Halted,
            Self {
                throttled: true, ..
            } => Shown::Throttled,
            _ => Shown::Runnable,
        }
    }
}

/// Draws records into a trace.
#[derive(Debug)]
pub(crate) struct Picture<W> {
    packets: Packets<W>,
    names: Vec<String>,
    vcpus: Vec<Vcpu>,
    /// Who pays and who runs.
    cpus: Vec<Option<(VcpuId, VcpuId)>>,
    dirty: Vec<VcpuId>,
    /// Time of the last record of the policy.
    now: Ns,
    flows: u64,
    waiting: u64,
    waiting_shown: Option<u64>,
    lost: u64,
}

impl<W: Write> Picture<W> {
    pub fn new(mut packets: Packets<W>, names: &Names, now: Ns) -> Self {
        tracks::describe(&mut packets, names);
        let mut picture = Self {
            packets,
            names: names.short(),
            vcpus: vec![Vcpu::NEW; names.vcpus.len()],
            cpus: vec![None; names.host_cpus.len()],
            dirty: Vec::new(),
            now,
            flows: 0,
            waiting: 0,
            waiting_shown: None,
            lost: 0,
        };
        for id in 0..picture.vcpus.len() as u32 {
            picture.touch(VcpuId(id));
        }
        picture
    }

    /// Takes a record of the policy; they come in their order.
    pub(crate) fn hear(&mut self, record: Record) {
        match record.what {
            What::Exit { cpu, vcpu, kind } => return self.exit(record.at, cpu, vcpu, kind),
            What::Gone(_) | What::Policy(_) | What::Lost(_) => {}
        }
        if record.at > self.now {
            self.settle();
            self.now = record.at;
        }
        match record.what {
            What::Policy(event) => self.decided(event),
            What::Gone(vcpu) => self.change(vcpu, |v| (v.gone, v.throttled) = (true, false)),
            What::Lost(records) => self.gap(records),
            What::Exit { .. } => {}
        }
    }

    /// Ends every slice, and the trace. `lost` records are missing in all.
    pub fn finish(mut self, lost: u64) -> (W, io::Result<()>) {
        self.settle();
        if lost > self.lost {
            self.gap(lost - self.lost);
        }
        self.close();
        self.packets.finish()
    }

    fn decided(&mut self, event: Event) {
        match event {
            Event::Pick {
                cpu,
                donor,
                curr: run,
                chain,
            } => self.pick(cpu, donor, run, chain),
            Event::Stop {
                cpu,
                donor,
                curr: run,
                ran,
            } => self.stop(cpu, donor, run, ran),
            Event::Wake(vcpu) => self.change(vcpu, |v| v.halted = false),
            Event::Halt(vcpu) => self.change(vcpu, |v| v.halted = true),
            Event::EdgeOn { waiter, holder } => {
                let name = format!("waits for {}", self.name(holder));
                self.instant(tracks::vcpu(waiter), &name, "edge");
            }
            Event::EdgeOff(waiter) => self.instant(tracks::vcpu(waiter), "waits no more", "edge"),
            Event::Park { vcpu: claim, on } => {
                let name = format!("set aside until {} stops or wakes", self.name(on));
                self.instant(tracks::budget(claim), &name, "claim");
            }
            Event::Throttle(vcpu, until) => {
                self.change(vcpu, |v| v.throttled = true);
                let facts = [("until_ns", Value::Number(until))];
                self.claim(
                    vcpu,
                    Claim::Throttled,
                    Mark {
                        name: "throttled",
                        category: "claim",
                        facts: &facts,
                        ..Mark::default()
                    },
                );
            }
            Event::Replenish(vcpu) => {
                self.change(vcpu, |v| v.throttled = false);
                self.claim_idle(vcpu, Claim::Throttled);
            }
            Event::Miss(vcpu) => self.instant(tracks::budget(vcpu), "deadline missed", "claim"),
            Event::Defer { curr: run, .. } => self.defer(run),
            Event::Kick(cpu) => self.instant(tracks::cpu(cpu), "kick", "kick"),
            Event::CpuOffline(cpu) => self.instant(tracks::cpu(cpu), "leaves the pool", "pool"),
            Event::CpuOnline(cpu) => self.instant(tracks::cpu(cpu), "is back in the pool", "pool"),
            Event::InForce(vcpu, reservation) => {
                let name = format!(
                    "reservation: {} ns in {} ns",
                    reservation.budget(),
                    reservation.period()
                );
                self.instant(tracks::budget(vcpu), &name, "claim");
            }
            // An idle CPU's lane is empty anyway.
            _ => {}
        }
    }

    fn pick(&mut self, cpu: CpuId, donor: VcpuId, run: VcpuId, chain: u32) {
        self.cpu_ends(cpu, &[]);
        let proxied = donor != run;
        self.change(run, |v| (v.on, v.halted) = (Some(donor), false));
        let (donor_name, mut name) = (self.name(donor), self.name(run));
        let mut flow = None;
        if proxied {
            // The arrow begins at the waiter's claim, passes the holder and ends where it runs.
            self.flows += 1;
            flow = Some(self.flows);
            self.change(donor, |v| v.pays = Some(run));
            let mark = Mark {
                category: "claim",
                flow,
                ..Mark::default()
            };
            self.claim(
                donor,
                Claim::Pays,
                Mark {
                    name: &format!("pays for {name}"),
                    ..mark
                },
            );
            self.show(donor, None);
            name = format!("{name} on {donor_name}'s budget");
        }
        self.show(run, flow);
        let facts = [
            ("donor", Value::Text(&donor_name)),
            ("chain", Value::Number(u64::from(chain))),
        ];
        self.packets.begin(
            self.now,
            tracks::cpu(cpu),
            Mark {
                name: &name,
                category: if proxied { "proxied" } else { "run" },
                flow: None,
                flow_end: flow,
                facts: if proxied { &facts } else { &facts[..1] },
            },
        );
        if let Some(slot) = self.cpus.get_mut(cpu.index()) {
            *slot = Some((donor, run));
        }
    }

    fn stop(&mut self, cpu: CpuId, donor: VcpuId, run: VcpuId, ran: Ns) {
        self.defer_ends(run);
        self.cpu_ends(cpu, &[("ran_ns", Value::Number(ran))]);
        self.change(run, |v| v.on = None);
        if donor != run {
            self.change(donor, |v| {
                v.pays = None;
                v.donated = v.donated.saturating_add(ran);
            });
            self.claim_idle(donor, Claim::Pays);
            if let Some(&Vcpu { donated, .. }) = self.vcpus.get(donor.index()) {
                self.packets
                    .counter(self.now, tracks::donated(donor), donated);
            }
        }
    }

    fn cpu_ends(&mut self, cpu: CpuId, facts: Facts<'_>) {
        if self
            .cpus
            .get_mut(cpu.index())
            .is_some_and(|slot| slot.take().is_some())
        {
            self.packets.end(self.now, tracks::cpu(cpu), facts);
        }
    }

    fn defer(&mut self, run: VcpuId) {
        let running = self
            .vcpus
            .get_mut(run.index())
            .filter(|v| v.on.is_some() && !v.deferred);
        if let Some(vcpu) = running {
            vcpu.deferred = true;
            let mark = Mark {
                name: "deferral",
                category: "deferral",
                ..Mark::default()
            };
            self.packets.begin(self.now, tracks::vcpu(run), mark);
        }
    }

    fn defer_ends(&mut self, run: VcpuId) {
        let vcpu = self.vcpus.get_mut(run.index());
        if vcpu.is_some_and(|v| std::mem::take(&mut v.deferred)) {
            self.packets.end(self.now, tracks::vcpu(run), &[]);
        }
    }

    fn exit(&mut self, at: Ns, cpu: CpuId, vcpu: VcpuId, kind: ExitKind) {
        let facts = [(
            "vcpu",
            Value::Text(self.names.get(vcpu.index()).map_or("?", |n| n)),
        )];
        let mark = Mark {
            name: kind.name(),
            category: "exit",
            facts: &facts,
            ..Mark::default()
        };
        self.packets.instant(at, tracks::cpu(cpu), mark);
    }

    /// Records are missing: nothing that went on is known to go on.
    fn gap(&mut self, records: u64) {
        self.lost = self.lost.saturating_add(records);
        self.close();
        for id in 0..self.vcpus.len() as u32 {
            self.change(VcpuId(id), |v| (v.on, v.pays) = (None, None));
        }
        let facts = [("records", Value::Number(records))];
        let mark = Mark {
            name: "records lost",
            category: "lost",
            facts: &facts,
            ..Mark::default()
        };
        self.packets.instant(self.now, POOL, mark);
    }

    /// Ends every slice.
    fn close(&mut self) {
        for cpu in 0..self.cpus.len() as u32 {
            self.cpu_ends(CpuId(cpu), &[]);
        }
        self.waiting = 0;
        for id in (0..self.vcpus.len() as u32).map(VcpuId) {
            self.defer_ends(id);
            let claim = self.vcpus[id.index()].claim;
            self.claim_idle(id, claim);
            if std::mem::replace(&mut self.vcpus[id.index()].shown, Shown::Nothing)
                != Shown::Nothing
            {
                self.packets.end(self.now, tracks::vcpu(id), &[]);
            }
        }
    }

    fn name(&self, vcpu: VcpuId) -> String {
        self.names
            .get(vcpu.index())
            .cloned()
            .unwrap_or_else(|| vcpu.to_string())
    }

    fn instant(&mut self, track: u64, name: &str, category: &'static str) {
        self.packets.instant(
            self.now,
            track,
            Mark {
                name,
                category,
                ..Mark::default()
            },
        );
    }

    fn change(&mut self, vcpu: VcpuId, change: impl FnOnce(&mut Vcpu)) {
        if let Some(v) = self.vcpus.get_mut(vcpu.index()) {
            change(v);
            self.touch(vcpu);
        }
    }

    fn touch(&mut self, vcpu: VcpuId) {
        if let Some(v) = self.vcpus.get_mut(vcpu.index())
            && !std::mem::replace(&mut v.dirty, true)
        {
            self.dirty.push(vcpu);
        }
    }

    fn claim(&mut self, vcpu: VcpuId, claim: Claim, mark: Mark<'_>) {
        let Some(now) = self.vcpus.get(vcpu.index()).map(|v| v.claim) else {
            return;
        };
        self.claim_idle(vcpu, now);
        self.vcpus[vcpu.index()].claim = claim;
        self.packets.begin(self.now, tracks::budget(vcpu), mark);
    }

    /// Ends what the claim's lane shows, if it is `was`.
    fn claim_idle(&mut self, vcpu: VcpuId, was: Claim) {
        let Some(v) = self.vcpus.get_mut(vcpu.index()) else {
            return;
        };
        if v.claim == was && was != Claim::Idle {
            v.claim = Claim::Idle;
            self.packets.end(self.now, tracks::budget(vcpu), &[]);
        }
    }

    /// Time moves on: the lanes show what has become of everybody.
    fn settle(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for vcpu in dirty.drain(..) {
            self.vcpus[vcpu.index()].dirty = false;
            self.show(vcpu, None);
        }
        // Its memory serves again.
        self.dirty = dirty;
        if self.waiting_shown.replace(self.waiting) != Some(self.waiting) {
            self.packets.counter(self.now, RUNNABLE, self.waiting);
        }
    }

    /// Brings a vCPU's lane up to date; with an arrow, by a new slice in any case.
    fn show(&mut self, id: VcpuId, flow: Option<u64>) {
        let Some(v) = self.vcpus.get_mut(id.index()) else {
            return;
        };
        let (before, after) = (v.shown, v.state(id));
        if before == after && flow.is_none() {
            return;
        }
        v.shown = after;
        let waits = |shown| u64::from(matches!(shown, Shown::Runnable | Shown::Pays(_)));
        self.waiting = self.waiting + waits(after) - waits(before);
        if before != Shown::Nothing {
            self.packets.end(self.now, tracks::vcpu(id), &[]);
        }
        let (name, category) = match after {
            Shown::Nothing => return,
            Shown::Halted => ("halted".to_owned(), "halted"),
            Shown::Runnable => ("runnable".to_owned(), "runnable"),
            Shown::Throttled => ("throttled".to_owned(), "throttled"),
            Shown::Pays(run) => (format!("pays for {}", self.name(run)), "pays"),
            Shown::Runs => ("runs".to_owned(), "run"),
            Shown::Carried(donor) => (format!("runs on {}'s budget", self.name(donor)), "carried"),
        };
        let mark = Mark {
            name: &name,
            category,
            flow,
            ..Mark::default()
        };
        self.packets.begin(self.now, tracks::vcpu(id), mark);
    }
}

#[cfg(test)]
mod tests;
