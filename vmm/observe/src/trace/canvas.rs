//! The tracks of a trace as they are drawn: which slice is open on each, and what is due next.
//!
//! Most of the time a vCPU stops and is picked again at the same moment. Its track shows no gap then: what
//! follows from a change is drawn only when time has moved on ([`Canvas::advance`]).

use std::io::{self, Write};

use vcpu_sched::{CpuId, Ns, VcpuId};

use super::joined_names::JoinedName;
use super::packets::{Facts, Mark, Packets};
use super::tracks::{self, RUNNABLE, VcpuTracks};
use super::vcpu_track::{ScSlice, VcpuSlice, VcpuTrack};
use crate::names::Names;

/// Draws slices, instants and counters.
#[derive(Debug)]
pub(super) struct Canvas<W> {
    packets: Packets<W>,
    names: Vec<String>,
    vcpus: Vec<VcpuTrack>,
    /// By host CPU: whether a slice is open on its track.
    busy: Vec<bool>,
    /// vCPUs whose tracks may be out of date.
    dirty: Vec<VcpuId>,
    /// Time of the last record of the policy, ns.
    now: Ns,
    /// vCPUs that wait for a CPU.
    waiting: u64,
    /// The value of `waiting` that was drawn last.
    waiting_shown: Option<u64>,
}

impl<W: Write> Canvas<W> {
    pub(super) fn new(mut packets: Packets<W>, names: &Names, now: Ns) -> Self {
        tracks::describe(&mut packets, names);
        let numbers = 0..names.vcpus.len() as u32;
        let mut canvas = Self {
            packets,
            names: names.short(),
            vcpus: numbers.map(VcpuTracks).map(VcpuTrack::new).collect(),
            busy: vec![false; names.host_cpus.len()],
            dirty: Vec::new(),
            now,
            waiting: 0,
            waiting_shown: None,
        };
        for id in canvas.ids() {
            canvas.touch(id);
        }
        canvas
    }

    /// Ends every slice, and the trace.
    pub(super) fn finish(mut self) -> (W, io::Result<()>) {
        self.end_all();
        self.packets.finish()
    }

    /// The ids of all vCPUs.
    pub(super) fn ids(&self) -> impl Iterator<Item = VcpuId> + use<W> {
        (0..self.vcpus.len() as u32).map(VcpuId)
    }

    /// `vcpu` is another vCPU from now on, with these names and tracks.
    pub(super) fn joined(&mut self, vcpu: VcpuId, tracks: VcpuTracks, joined: &JoinedName) {
        let short = tracks::describe_joined(&mut self.packets, tracks, joined);
        // The policy gives the lowest ids that are free, but a record may have been lost.
        while self.vcpus.len() <= vcpu.index() {
            let next = VcpuId(self.vcpus.len() as u32);
            let mut unknown = VcpuTrack::new(VcpuTracks(next.0));
            unknown.gone = true;
            self.vcpus.push(unknown);
            self.names.push(next.to_string());
        }
        self.end_vcpu(vcpu);
        let dirty = self.vcpus[vcpu.index()].dirty;
        self.vcpus[vcpu.index()] = VcpuTrack {
            dirty,
            ..VcpuTrack::new(tracks)
        };
        self.names[vcpu.index()] = short;
        self.touch(vcpu);
    }

    /// The tracks of `vcpu`.
    pub(super) fn tracks(&self, vcpu: VcpuId) -> VcpuTracks {
        let track = self.vcpus.get(vcpu.index());
        track.map_or(VcpuTracks(vcpu.0), |track| track.tracks)
    }

    /// The short name of `vcpu`; its number if it has none.
    pub(super) fn name(&self, vcpu: VcpuId) -> String {
        self.names
            .get(vcpu.index())
            .cloned()
            .unwrap_or_else(|| vcpu.to_string())
    }

    /// On whose budget a vCPU runs that `donor` carries, and whether only because `donor` suspects it.
    pub(super) fn budget_that_carries(&self, donor: VcpuId) -> String {
        let track = self.vcpus.get(donor.index());
        let suspect = match track.is_some_and(|track| track.suspects) {
            true => "as a suspect ",
            false => "",
        };
        format!("{suspect}on {}'s budget", self.name(donor))
    }

    /// Moves on to `at`: the tracks show what has become of each vCPU until then.
    pub(super) fn advance(&mut self, at: Ns) {
        if at > self.now {
            self.settle();
            self.now = at;
        }
    }

    /// Brings all tracks up to date.
    pub(super) fn settle(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for vcpu in dirty.drain(..) {
            self.vcpus[vcpu.index()].dirty = false;
            self.show(vcpu, None);
        }
        // The allocation is used again.
        self.dirty = dirty;
        if self.waiting_shown.replace(self.waiting) != Some(self.waiting) {
            self.packets.counter(self.now, RUNNABLE, self.waiting);
        }
    }

    /// Changes the state of `vcpu`; its track shows the result when time moves on.
    pub(super) fn change(&mut self, vcpu: VcpuId, change: impl FnOnce(&mut VcpuTrack)) {
        if let Some(track) = self.vcpus.get_mut(vcpu.index()) {
            change(track);
            self.touch(vcpu);
        }
    }

    fn touch(&mut self, vcpu: VcpuId) {
        if let Some(track) = self.vcpus.get_mut(vcpu.index())
            && !std::mem::replace(&mut track.dirty, true)
        {
            self.dirty.push(vcpu);
        }
    }

    /// Brings the track of a vCPU up to date now. With the arrow `flow` it gets a new slice in any case.
    pub(super) fn show(&mut self, id: VcpuId, flow: Option<u64>) {
        let Some(track) = self.vcpus.get_mut(id.index()) else {
            return;
        };
        let (before, after) = (track.shown, track.due(id));
        if before == after && flow.is_none() {
            return;
        }
        track.shown = after;
        self.waiting =
            self.waiting + u64::from(after.waits_for_cpu()) - u64::from(before.waits_for_cpu());
        if before != VcpuSlice::Nothing {
            self.packets.end(self.now, self.tracks(id).vcpu(), &[]);
        }
        let (name, category) = match after {
            VcpuSlice::Nothing => return,
            VcpuSlice::Halted => ("halted".to_owned(), "halted"),
            VcpuSlice::Runnable => ("runnable".to_owned(), "runnable"),
            VcpuSlice::Throttled => ("throttled".to_owned(), "throttled"),
            VcpuSlice::Carries(curr) => (format!("pays for {}", self.name(curr)), "pays"),
            VcpuSlice::Runs => ("runs".to_owned(), "run"),
            VcpuSlice::Proxied(donor) => {
                let budget = self.budget_that_carries(donor);
                (format!("runs {budget}"), "carried")
            }
        };
        let mark = Mark {
            name: &name,
            category,
            flow,
            ..Mark::default()
        };
        self.packets.begin(self.now, self.tracks(id).vcpu(), mark);
    }

    /// Begins a slice on the track of `cpu`.
    pub(super) fn begin_cpu(&mut self, cpu: CpuId, mark: Mark<'_>) {
        self.packets.begin(self.now, tracks::cpu(cpu), mark);
        if let Some(busy) = self.busy.get_mut(cpu.index()) {
            *busy = true;
        }
    }

    /// Ends the slice on the track of `cpu`, if one is open.
    pub(super) fn end_cpu(&mut self, cpu: CpuId, facts: Facts<'_>) {
        if self.busy.get_mut(cpu.index()).is_some_and(std::mem::take) {
            self.packets.end(self.now, tracks::cpu(cpu), facts);
        }
    }

    /// Shows `slice` on the track of the scheduling context of `vcpu`.
    pub(super) fn begin_sc(&mut self, vcpu: VcpuId, slice: ScSlice, mark: Mark<'_>) {
        let Some(shown) = self.vcpus.get(vcpu.index()).map(|track| track.sc_shown) else {
            return;
        };
        self.end_sc(vcpu, shown);
        self.vcpus[vcpu.index()].sc_shown = slice;
        self.packets
            .begin(self.now, self.tracks(vcpu).budget(), mark);
    }

    /// Ends the slice on the track of the scheduling context of `vcpu`, if it is `slice`.
    pub(super) fn end_sc(&mut self, vcpu: VcpuId, slice: ScSlice) {
        let Some(track) = self.vcpus.get_mut(vcpu.index()) else {
            return;
        };
        if track.sc_shown == slice && slice != ScSlice::Idle {
            track.sc_shown = ScSlice::Idle;
            self.packets.end(self.now, self.tracks(vcpu).budget(), &[]);
        }
    }

    /// Begins a deferral of `vcpu`, within the slice in which it runs.
    pub(super) fn begin_deferral(&mut self, vcpu: VcpuId) {
        let running = self
            .vcpus
            .get_mut(vcpu.index())
            .filter(|track| track.runs_on.is_some() && !track.deferred);
        if let Some(track) = running {
            track.deferred = true;
            let mark = Mark {
                name: "deferral",
                category: "deferral",
                ..Mark::default()
            };
            self.packets.begin(self.now, self.tracks(vcpu).vcpu(), mark);
        }
    }

    /// Ends the deferral of `vcpu`, if it is in one.
    pub(super) fn end_deferral(&mut self, vcpu: VcpuId) {
        let track = self.vcpus.get_mut(vcpu.index());
        if track.is_some_and(|track| std::mem::take(&mut track.deferred)) {
            self.packets.end(self.now, self.tracks(vcpu).vcpu(), &[]);
        }
    }

    /// Adds `ran`, ns, to the counter of what others ran on the budget of `donor`.
    pub(super) fn donate(&mut self, donor: VcpuId, ran: Ns) {
        if let Some(track) = self.vcpus.get_mut(donor.index()) {
            track.donated = track.donated.saturating_add(ran);
            let donated = track.donated;
            self.packets
                .counter(self.now, self.tracks(donor).donated(), donated);
        }
    }

    /// Marks the moment on `track`.
    pub(super) fn instant(&mut self, track: u64, name: &str, category: &'static str) {
        let mark = Mark {
            name,
            category,
            ..Mark::default()
        };
        self.instant_at(self.now, track, mark);
    }

    /// Marks the moment `at`, ns, on `track`.
    pub(super) fn instant_at(&mut self, at: Ns, track: u64, mark: Mark<'_>) {
        self.packets.instant(at, track, mark);
    }

    /// The time up to which the tracks are drawn, ns.
    pub(super) fn now(&self) -> Ns {
        self.now
    }

    /// Ends every slice.
    pub(super) fn end_all(&mut self) {
        for cpu in 0..self.busy.len() as u32 {
            self.end_cpu(CpuId(cpu), &[]);
        }
        for id in self.ids() {
            self.end_vcpu(id);
        }
    }

    /// Ends the slices on all tracks of `id`.
    fn end_vcpu(&mut self, id: VcpuId) {
        self.end_deferral(id);
        let track = &mut self.vcpus[id.index()];
        let sc_shown = track.sc_shown;
        let shown = std::mem::replace(&mut track.shown, VcpuSlice::Nothing);
        self.waiting -= u64::from(shown.waits_for_cpu());
        self.end_sc(id, sc_shown);
        if shown != VcpuSlice::Nothing {
            self.packets.end(self.now, self.tracks(id).vcpu(), &[]);
        }
    }
}
