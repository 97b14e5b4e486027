//! The messages of Perfetto's trace format that Baton's traces consist of.
//!
//! Source: `protos/perfetto/trace/**` of the Perfetto project; only field numbers and types matter
//! here, and those never change. The fields of a `oneof` are plain optional fields here, which look the
//! same on the wire.

use prost::Message;

/// A whole trace. Two traces, one after the other, are one trace, so a file can grow packet by packet.
#[derive(Clone, PartialEq, Message)]
pub struct Trace {
    /// Its packets.
    #[prost(message, repeated, tag = "1")]
    pub packets: Vec<TracePacket>,
}

/// One packet.
#[derive(Clone, PartialEq, Message)]
pub struct TracePacket {
    /// The same moment on several clocks.
    #[prost(message, optional, tag = "6")]
    pub clock_snapshot: Option<ClockSnapshot>,
    /// Time stamp, ns on the sequence's clock.
    #[prost(uint64, optional, tag = "8")]
    pub timestamp: Option<u64>,
    /// The writer. Names are numbered per writer.
    #[prost(uint32, optional, tag = "10")]
    pub sequence_id: Option<u32>,
    /// An event on a track.
    #[prost(message, optional, tag = "11")]
    pub track_event: Option<TrackEvent>,
    /// Names that this packet and later ones use by number.
    #[prost(message, optional, tag = "12")]
    pub interned_data: Option<InternedData>,
    /// [`SEQUENCE_CLEARED`], [`SEQUENCE_NEEDED`].
    #[prost(uint32, optional, tag = "13")]
    pub sequence_flags: Option<u32>,
    /// Defaults for what later packets of the sequence leave out.
    #[prost(message, optional, tag = "59")]
    pub defaults: Option<TracePacketDefaults>,
    /// A new track.
    #[prost(message, optional, tag = "60")]
    pub track_descriptor: Option<TrackDescriptor>,
}

/// Of [`TracePacket::sequence_flags`]: forget the sequence's names.
pub const SEQUENCE_CLEARED: u32 = 1;
/// Of [`TracePacket::sequence_flags`]: the packet uses names by number.
pub const SEQUENCE_NEEDED: u32 = 2;
/// Perfetto's number for `CLOCK_MONOTONIC`.
pub const CLOCK_MONOTONIC: u32 = 3;
/// Perfetto's number for `CLOCK_BOOTTIME`.
pub const CLOCK_BOOTTIME: u32 = 6;

/// The same moment on several clocks.
#[derive(Clone, PartialEq, Message)]
pub struct ClockSnapshot {
    /// The clocks.
    #[prost(message, repeated, tag = "1")]
    pub clocks: Vec<Clock>,
}

/// One clock's reading.
#[derive(Clone, PartialEq, Message)]
pub struct Clock {
    /// Which clock.
    #[prost(uint32, optional, tag = "1")]
    pub clock_id: Option<u32>,
    /// What it reads, ns.
    #[prost(uint64, optional, tag = "2")]
    pub timestamp: Option<u64>,
}

/// Defaults of a sequence.
#[derive(Clone, PartialEq, Message)]
pub struct TracePacketDefaults {
    /// The clock of its time stamps.
    #[prost(uint32, optional, tag = "58")]
    pub timestamp_clock_id: Option<u32>,
}

/// A track: one line of the picture.
#[derive(Clone, PartialEq, Message)]
pub struct TrackDescriptor {
    /// Its number.
    #[prost(uint64, optional, tag = "1")]
    pub uuid: Option<u64>,
    /// Its name.
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
    /// The track below which it is shown.
    #[prost(uint64, optional, tag = "5")]
    pub parent_uuid: Option<u64>,
    /// Set if the track is a counter.
    #[prost(message, optional, tag = "8")]
    pub counter: Option<CounterDescriptor>,
    /// How the tracks below it are ordered: [`ORDER_EXPLICIT`].
    #[prost(int32, optional, tag = "11")]
    pub child_ordering: Option<i32>,
    /// Its rank among its siblings.
    #[prost(int32, optional, tag = "12")]
    pub sibling_order_rank: Option<i32>,
}

/// Of [`TrackDescriptor::child_ordering`]: by rank.
pub const ORDER_EXPLICIT: i32 = 3;

/// What a counter counts.
#[derive(Clone, PartialEq, Message)]
pub struct CounterDescriptor {
    /// [`UNIT_NS`] or [`UNIT_COUNT`].
    #[prost(int32, optional, tag = "3")]
    pub unit: Option<i32>,
}

/// Of [`CounterDescriptor::unit`]: nanoseconds.
pub const UNIT_NS: i32 = 1;
/// Of [`CounterDescriptor::unit`]: a plain number.
pub const UNIT_COUNT: i32 = 2;

/// An event on a track.
#[derive(Clone, PartialEq, Message)]
pub struct TrackEvent {
    /// Names of its categories, by number.
    #[prost(uint64, repeated, packed = "false", tag = "3")]
    pub category_iids: Vec<u64>,
    /// Facts about the event.
    #[prost(message, repeated, tag = "4")]
    pub annotations: Vec<DebugAnnotation>,
    /// [`SLICE_BEGIN`], [`SLICE_END`], [`INSTANT`] or [`COUNTER`].
    #[prost(int32, optional, tag = "9")]
    pub r#type: Option<i32>,
    /// Its name, by number.
    #[prost(uint64, optional, tag = "10")]
    pub name_iid: Option<u64>,
    /// Its track.
    #[prost(uint64, optional, tag = "11")]
    pub track_uuid: Option<u64>,
    /// A counter's value.
    #[prost(int64, optional, tag = "30")]
    pub counter_value: Option<i64>,
    /// Arrows that begin or pass here.
    #[prost(fixed64, repeated, packed = "false", tag = "47")]
    pub flow_ids: Vec<u64>,
    /// Arrows that end here.
    #[prost(fixed64, repeated, packed = "false", tag = "48")]
    pub terminating_flow_ids: Vec<u64>,
}

/// Of [`TrackEvent::type`]: a slice begins.
pub const SLICE_BEGIN: i32 = 1;
/// Of [`TrackEvent::type`]: the innermost slice of the track ends.
pub const SLICE_END: i32 = 2;
/// Of [`TrackEvent::type`]: an instant.
pub const INSTANT: i32 = 3;
/// Of [`TrackEvent::type`]: a counter's new value.
pub const COUNTER: i32 = 4;

/// A fact about an event.
#[derive(Clone, PartialEq, Message)]
pub struct DebugAnnotation {
    /// Its name, by number.
    #[prost(uint64, optional, tag = "1")]
    pub name_iid: Option<u64>,
    /// Its value, if it is a number.
    #[prost(uint64, optional, tag = "3")]
    pub uint_value: Option<u64>,
    /// Its value, if it is text.
    #[prost(string, optional, tag = "6")]
    pub string_value: Option<String>,
}

/// Names, and the numbers that stand for them.
#[derive(Clone, PartialEq, Message)]
pub struct InternedData {
    /// Names of categories.
    #[prost(message, repeated, tag = "1")]
    pub categories: Vec<InternedName>,
    /// Names of events.
    #[prost(message, repeated, tag = "2")]
    pub event_names: Vec<InternedName>,
    /// Names of annotations.
    #[prost(message, repeated, tag = "3")]
    pub annotation_names: Vec<InternedName>,
}

/// A name and its number.
#[derive(Clone, PartialEq, Message)]
pub struct InternedName {
    /// The number, from 1.
    #[prost(uint64, optional, tag = "1")]
    pub iid: Option<u64>,
    /// The name.
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
}
