//! Writes events as packets: names become numbers, packets become bytes.

use std::collections::HashMap;
use std::io::{self, Write};

use prost::Message;
use vcpu_sched::Ns;

use super::perfetto::{
    CLOCK_BOOTTIME, CLOCK_MONOTONIC, COUNTER, Clock, ClockSnapshot, DebugAnnotation, INSTANT,
    InternedData, InternedName, SEQUENCE_CLEARED, SEQUENCE_NEEDED, SLICE_BEGIN, SLICE_END,
    TracePacket, TracePacketDefaults, TrackDescriptor, TrackEvent,
};

/// The only sequence of a trace of ours.
const SEQUENCE: u32 = 1;
/// The field `Trace.packets` and its wire type.
const PACKET: u8 = 1 << 3 | 2;

/// The value of a fact about an event.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Number(u64),
    Text(&'a str),
}

/// Facts about an event, by name.
pub(super) type Facts<'a> = &'a [(&'static str, Value<'a>)];

/// A slice or an instant.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark<'a> {
    pub(super) name: &'a str,
    pub(super) category: &'static str,
    /// The arrow that begins here, or passes.
    pub(super) flow: Option<u64>,
    /// The arrow that ends here.
    pub(super) flow_end: Option<u64>,
    pub(super) facts: Facts<'a>,
}

/// The writer of a trace.
#[derive(Debug)]
pub(super) struct Packets<W> {
    out: W,
    buffer: Vec<u8>,
    names: HashMap<String, u64>,
    categories: HashMap<&'static str, u64>,
    annotations: HashMap<&'static str, u64>,
    /// The first error. Nothing is written after it.
    failed: Option<io::Error>,
}

impl<W: Write> Packets<W> {
    /// Begins a trace. `monotonic` and `boottime` are the same moment on the two clocks, ns.
    pub(super) fn new(out: W, monotonic: Ns, boottime: Ns) -> Self {
        let mut packets = Self {
            out,
            buffer: Vec::new(),
            names: HashMap::new(),
            categories: HashMap::new(),
            annotations: HashMap::new(),
            failed: None,
        };
        let clock = |id, at| Clock {
            clock_id: Some(id),
            timestamp: Some(at),
        };
        packets.put(&TracePacket {
            sequence_id: Some(SEQUENCE),
            sequence_flags: Some(SEQUENCE_CLEARED),
            defaults: Some(TracePacketDefaults {
                timestamp_clock_id: Some(CLOCK_MONOTONIC),
            }),
            ..TracePacket::default()
        });
        packets.put(&TracePacket {
            clock_snapshot: Some(ClockSnapshot {
                clocks: vec![
                    clock(CLOCK_MONOTONIC, monotonic),
                    clock(CLOCK_BOOTTIME, boottime),
                ],
            }),
            ..TracePacket::default()
        });
        packets
    }

    pub(super) fn track(&mut self, track: TrackDescriptor) {
        self.put(&TracePacket {
            sequence_id: Some(SEQUENCE),
            track_descriptor: Some(track),
            ..TracePacket::default()
        });
    }

    pub(super) fn begin(&mut self, at: Ns, track: u64, mark: Mark<'_>) {
        self.mark(at, track, SLICE_BEGIN, mark);
    }

    pub(super) fn instant(&mut self, at: Ns, track: u64, mark: Mark<'_>) {
        self.mark(at, track, INSTANT, mark);
    }

    /// Ends the innermost slice of the track, and adds `facts` to those of its begin.
    pub(super) fn end(&mut self, at: Ns, track: u64, facts: Facts<'_>) {
        let mut new = InternedData::default();
        let annotations = self.annotations(&mut new, facts);
        self.event(
            at,
            new,
            TrackEvent {
                r#type: Some(SLICE_END),
                track_uuid: Some(track),
                annotations,
                ..TrackEvent::default()
            },
        );
    }

    pub(super) fn counter(&mut self, at: Ns, track: u64, value: u64) {
        self.event(
            at,
            InternedData::default(),
            TrackEvent {
                r#type: Some(COUNTER),
                track_uuid: Some(track),
                counter_value: Some(i64::try_from(value).unwrap_or(i64::MAX)),
                ..TrackEvent::default()
            },
        );
    }

    /// Writes what is buffered. Returns the first error of the whole trace.
    pub(super) fn finish(mut self) -> (W, io::Result<()>) {
        let flushed = self.out.flush();
        (self.out, self.failed.map_or(flushed, Err))
    }

    fn mark(&mut self, at: Ns, track: u64, r#type: i32, mark: Mark<'_>) {
        let mut new = InternedData::default();
        let next = self.names.len() as u64 + 1;
        let name = match self.names.get(mark.name) {
            Some(&iid) => iid,
            None => {
                self.names.insert(mark.name.to_owned(), next);
                new.event_names.push(interned(next, mark.name));
                next
            }
        };
        let category = intern(&mut self.categories, &mut new.categories, mark.category);
        let annotations = self.annotations(&mut new, mark.facts);
        self.event(
            at,
            new,
            TrackEvent {
                r#type: Some(r#type),
                track_uuid: Some(track),
                name_iid: Some(name),
                category_iids: vec![category],
                annotations,
                flow_ids: mark.flow.into_iter().collect(),
                terminating_flow_ids: mark.flow_end.into_iter().collect(),
                ..TrackEvent::default()
            },
        );
    }

    fn annotations(&mut self, new: &mut InternedData, facts: Facts<'_>) -> Vec<DebugAnnotation> {
        let annotation = |&(name, value): &(&'static str, Value<'_>)| {
            let iid = intern(&mut self.annotations, &mut new.annotation_names, name);
            let (uint_value, string_value) = match value {
                Value::Number(number) => (Some(number), None),
                Value::Text(text) => (None, Some(text.to_owned())),
            };
            DebugAnnotation {
                name_iid: Some(iid),
                uint_value,
                string_value,
            }
        };
        facts.iter().map(annotation).collect()
    }

    fn event(&mut self, at: Ns, new: InternedData, event: TrackEvent) {
        self.put(&TracePacket {
            timestamp: Some(at),
            sequence_id: Some(SEQUENCE),
            sequence_flags: Some(SEQUENCE_NEEDED),
            interned_data: (new != InternedData::default()).then_some(new),
            track_event: Some(event),
            ..TracePacket::default()
        });
    }

    fn put(&mut self, packet: &TracePacket) {
        if self.failed.is_some() {
            return;
        }
        self.buffer.clear();
        self.buffer.push(PACKET);
        // A vector grows, so encoding into it cannot fail.
        if packet.encode_length_delimited(&mut self.buffer).is_ok()
            && let Err(error) = self.out.write_all(&self.buffer)
        {
            self.failed = Some(error);
        }
    }
}

fn interned(iid: u64, name: &str) -> InternedName {
    InternedName {
        iid: Some(iid),
        name: Some(name.to_owned()),
    }
}

fn intern(
    known: &mut HashMap<&'static str, u64>,
    new: &mut Vec<InternedName>,
    name: &'static str,
) -> u64 {
    let next = known.len() as u64 + 1;
    *known.entry(name).or_insert_with(|| {
        new.push(interned(next, name));
        next
    })
}
