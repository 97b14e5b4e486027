use prost::Message;

use super::*;
use crate::names::VcpuName;
use crate::trace::perfetto::{
    COUNTER, INSTANT, SEQUENCE_CLEARED, SLICE_BEGIN, SLICE_END, Trace, TracePacket,
};

fn names() -> Names {
    let vcpu = |index| VcpuName {
        guest: 0,
        guest_name: "db".into(),
        index,
    };
    Names {
        host_cpus: vec![3],
        vcpus: vec![vcpu(0), vcpu(1)],
    }
}

fn trace(records: &[(Ns, RecordedEvent)], lost: u64) -> Vec<TracePacket> {
    let joined = Arc::new(JoinedNames::after(&names()));
    trace_with(joined, records, lost)
}

fn trace_with(
    joined: Arc<JoinedNames>,
    records: &[(Ns, RecordedEvent)],
    lost: u64,
) -> Vec<TracePacket> {
    let packets = Packets::new(Vec::new(), 5, 5);
    let mut picture = TracePicture::new(packets, &names(), joined, 10);
    for &(at, event) in records {
        picture.draw(TraceRecord { at, event });
    }
    let (bytes, result) = picture.finish(lost);
    result.expect("a vector takes all");
    Trace::decode(&bytes[..]).expect("is a trace").packets
}

/// The events of one track as `time +name` for begins, `time -` for ends, `time !name` for moments.
fn lane(packets: &[TracePacket], track: u64) -> String {
    let mut names = std::collections::HashMap::new();
    let mut lane = Vec::new();
    for packet in packets {
        for name in packet
            .interned_data
            .iter()
            .flat_map(|data| &data.event_names)
        {
            names.insert(name.iid(), name.name().to_owned());
        }
        let Some(event) = packet
            .track_event
            .as_ref()
            .filter(|e| e.track_uuid() == track)
        else {
            continue;
        };
        let name = names.get(&event.name_iid()).map_or("", |n| n);
        let at = packet.timestamp();
        lane.push(match event.r#type() {
            SLICE_BEGIN => format!("{at} +{name}"),
            SLICE_END => format!("{at} -"),
            INSTANT => format!("{at} !{name}"),
            COUNTER => format!("{at} ={}", event.counter_value()),
            other => panic!("type {other}"),
        });
    }
    lane.join(", ")
}

const CPU: CpuId = CpuId(0);
const HOLDER: VcpuId = VcpuId(0);
const WAITER: VcpuId = VcpuId(1);

fn pick(donor: VcpuId, curr: VcpuId) -> RecordedEvent {
    RecordedEvent::Policy(Event::Pick {
        cpu: CPU,
        donor,
        curr,
        chain: u32::from(donor != curr),
    })
}

fn stop(donor: VcpuId, curr: VcpuId, ran: Ns) -> RecordedEvent {
    RecordedEvent::Policy(Event::Stop {
        cpu: CPU,
        donor,
        curr,
        ran,
    })
}

#[test]
fn a_waiters_budget_carries_a_throttled_holder() {
    let packets = trace(
        &[
            (10, RecordedEvent::Policy(Event::Wake(HOLDER))),
            (10, RecordedEvent::Policy(Event::Wake(WAITER))),
            (10, pick(HOLDER, HOLDER)),
            (20, RecordedEvent::Policy(Event::Throttle(HOLDER, 90))),
            (20, stop(HOLDER, HOLDER, 9)),
            (20, pick(WAITER, WAITER)),
            (30, stop(WAITER, WAITER, 10)),
            (
                30,
                RecordedEvent::Policy(Event::EdgeOn {
                    waiter: WAITER,
                    holder: HOLDER,
                    is_suspicion: false,
                }),
            ),
            (30, pick(WAITER, HOLDER)),
            (
                35,
                RecordedEvent::Exit {
                    cpu: CPU,
                    vcpu: HOLDER,
                    kind: ExitKind::Doorbell,
                },
            ),
            (
                38,
                RecordedEvent::Policy(Event::Defer {
                    cpu: CPU,
                    curr: HOLDER,
                }),
            ),
            (40, RecordedEvent::Policy(Event::EdgeOff(WAITER))),
            (40, stop(WAITER, HOLDER, 11)),
            (40, pick(WAITER, WAITER)),
            (50, stop(WAITER, WAITER, 10)),
            (50, RecordedEvent::Policy(Event::Halt(WAITER))),
            (60, RecordedEvent::Gone(HOLDER)),
        ],
        0,
    );
    assert_eq!(
        lane(&packets, tracks::cpu(CPU)),
        "10 +v0, 20 -, 20 +v1, 30 -, 30 +v0 on v1's budget, 35 !doorbell, 40 -, 40 +v1, 50 -"
    );
    assert_eq!(
        lane(&packets, VcpuTracks(HOLDER.0).vcpu()),
        "10 +runs, 20 -, 20 +throttled, 30 -, 30 +runs on v1's budget, 38 +deferral, 40 -, 40 -, \
         40 +throttled, 60 -"
    );
    assert_eq!(
        lane(&packets, VcpuTracks(WAITER.0).vcpu()),
        "10 +runnable, 20 -, 20 +runs, 30 !waits for v0, 30 -, 30 +pays for v0, \
         40 !waits no more, 40 -, 40 +runs, 50 -, 50 +halted, 60 -"
    );
    assert_eq!(
        lane(&packets, VcpuTracks(HOLDER.0).budget()),
        "20 +throttled, 60 -"
    );
    assert_eq!(
        lane(&packets, VcpuTracks(WAITER.0).budget()),
        "30 +pays for v0, 40 -"
    );
    assert_eq!(lane(&packets, VcpuTracks(WAITER.0).donated()), "40 =11");
    assert_eq!(lane(&packets, POOL), "");

    let flows: Vec<_> = packets
        .iter()
        .filter_map(|packet| packet.track_event.as_ref())
        .filter(|e| !e.flow_ids.is_empty() || !e.terminating_flow_ids.is_empty())
        .map(|e| {
            (
                e.track_uuid(),
                e.flow_ids.clone(),
                e.terminating_flow_ids.clone(),
            )
        })
        .collect();
    assert_eq!(
        flows,
        [
            (VcpuTracks(WAITER.0).budget(), vec![1], vec![]),
            (VcpuTracks(HOLDER.0).vcpu(), vec![1], vec![]),
            (tracks::cpu(CPU), vec![], vec![1]),
        ],
        "from the waiter's scheduling context, past the holder, to the CPU"
    );
}

#[test]
fn a_vcpu_that_is_carried_on_a_guess_is_shown_as_a_suspect() {
    let edge = |is_suspicion| {
        RecordedEvent::Policy(Event::EdgeOn {
            waiter: WAITER,
            holder: HOLDER,
            is_suspicion,
        })
    };
    let packets = trace(
        &[
            (10, RecordedEvent::Policy(Event::Wake(HOLDER))),
            (20, edge(true)),
            (20, pick(WAITER, HOLDER)),
            (30, stop(WAITER, HOLDER, 9)),
            (30, RecordedEvent::Policy(Event::EdgeOff(WAITER))),
            (40, edge(false)),
            (40, pick(WAITER, HOLDER)),
            (50, stop(WAITER, HOLDER, 9)),
        ],
        0,
    );
    assert_eq!(
        lane(&packets, tracks::cpu(CPU)),
        "20 +v0 as a suspect on v1's budget, 30 -, 40 +v0 on v1's budget, 50 -"
    );
    let holder = lane(&packets, VcpuTracks(HOLDER.0).vcpu());
    assert!(
        holder.contains("20 +runs as a suspect on v1's budget, 30 -"),
        "{holder}"
    );
    assert!(holder.contains("40 +runs on v1's budget, 50 -"), "{holder}");
    let waiter = lane(&packets, VcpuTracks(WAITER.0).vcpu());
    assert!(waiter.contains("20 !suspects v0"), "{waiter}");
    assert!(waiter.contains("40 !waits for v0"), "{waiter}");
}

#[test]
fn a_gap_ends_all_slices_and_what_follows_is_drawn_again() {
    let packets = trace(
        &[
            (10, RecordedEvent::Policy(Event::Wake(HOLDER))),
            (10, pick(WAITER, HOLDER)),
            (20, RecordedEvent::Lost(7)),
            (20, stop(HOLDER, HOLDER, 3)),
            (30, pick(HOLDER, HOLDER)),
        ],
        9,
    );
    assert_eq!(
        lane(&packets, tracks::cpu(CPU)),
        "10 +v0 on v1's budget, 20 -, 30 +v0, 30 -"
    );
    assert_eq!(
        lane(&packets, VcpuTracks(WAITER.0).budget()),
        "10 +pays for v0, 20 -"
    );
    assert_eq!(
        lane(&packets, POOL),
        "20 !records lost, 30 !records lost",
        "one gap between, one at the end"
    );
}

#[test]
fn the_first_packet_clears_the_names_and_the_next_one_has_both_clocks() {
    let packets = trace(&[], 0);
    assert_eq!(packets[0].sequence_flags, Some(SEQUENCE_CLEARED));
    let clocks = &packets[1].clock_snapshot.as_ref().expect("clocks").clocks;
    assert_eq!(
        clocks
            .iter()
            .map(|c| (c.clock_id(), c.timestamp()))
            .collect::<Vec<_>>(),
        [(3, 5), (6, 5)]
    );
}

#[test]
fn names_that_do_not_exist_do_no_harm() {
    let nobody = VcpuId(99);
    trace(
        &[
            (
                10,
                RecordedEvent::Policy(Event::Pick {
                    cpu: CpuId(9),
                    donor: nobody,
                    curr: HOLDER,
                    chain: 1,
                }),
            ),
            (
                11,
                RecordedEvent::Policy(Event::Stop {
                    cpu: CpuId(9),
                    donor: nobody,
                    curr: nobody,
                    ran: 1,
                }),
            ),
            (12, RecordedEvent::Policy(Event::Throttle(nobody, 1))),
            (13, RecordedEvent::Gone(nobody)),
        ],
        0,
    );
}

#[test]
fn a_vcpu_that_gets_the_id_of_one_that_has_left_has_a_name_and_tracks_of_its_own() {
    let joined = Arc::new(JoinedNames::after(&names()));
    let name = VcpuName {
        guest: 7,
        guest_name: "late".into(),
        index: 0,
    };
    let number = joined.add(vec![name]);
    assert_eq!(number, 2, "after those from the start");
    let vcpu = VcpuId(1);
    let records = [
        (20, RecordedEvent::Policy(Event::Wake(vcpu))),
        (30, RecordedEvent::Gone(vcpu)),
        (40, RecordedEvent::Joined { vcpu, number }),
        (50, RecordedEvent::Policy(Event::Wake(vcpu))),
    ];
    let packets = trace_with(joined, &records, 0);
    let of_former = lane(&packets, VcpuTracks(1).vcpu());
    assert_eq!(of_former, "10 +halted, 20 -, 20 +runnable, 30 -");
    let of_late = lane(&packets, VcpuTracks(number).vcpu());
    assert_eq!(of_late, "40 +halted, 50 -, 50 +runnable, 50 -");
    let tracks = packets.iter().filter_map(|p| p.track_descriptor.as_ref());
    let names: Vec<&str> = tracks.map(|track| track.name()).collect();
    assert!(names.contains(&"guest late") && names.contains(&"late/v0"));
}
