//! The trace of a real run, compared with the counters of the run.

mod common;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use baton_observe::trace::perfetto::{COUNTER, INSTANT, SLICE_BEGIN, SLICE_END, Trace, TrackEvent};
use prost::Message;
use serde_json::Value;

use common::{Ran, baton, file};

/// A slice of a track.
#[derive(Clone, Debug, Default)]
struct Slice {
    name: String,
    category: String,
    start: u64,
    end: u64,
    /// Slices of the track that it lies within.
    depth: usize,
    flows: Vec<u64>,
    numbers: HashMap<String, u64>,
    texts: HashMap<String, String>,
}

/// The description of one track in a trace.
#[derive(Debug, Default)]
struct Track {
    slices: Vec<Slice>,
    open: Vec<Slice>,
    instants: Vec<String>,
    last_count: i64,
}

/// Reads a trace. Returns its tracks by name.
fn read(path: &PathBuf) -> HashMap<String, Track> {
    let bytes = std::fs::read(path).expect("the trace is there");
    let trace = Trace::decode(&bytes[..]).expect("and is one");
    let mut names: [HashMap<u64, String>; 3] = Default::default();
    let mut track_names = HashMap::new();
    let mut tracks: HashMap<String, Track> = HashMap::new();
    for packet in &trace.packets {
        if let Some(track) = &packet.track_descriptor {
            track_names.insert(track.uuid(), track.name().to_owned());
            tracks.entry(track.name().to_owned()).or_default();
        }
        if let Some(data) = &packet.interned_data {
            let kinds = [&data.categories, &data.event_names, &data.annotation_names];
            for (known, new) in names.iter_mut().zip(kinds) {
                known.extend(new.iter().map(|name| (name.iid(), name.name().to_owned())));
            }
        }
        if let Some(event) = &packet.track_event {
            let track = track_names
                .get(&event.track_uuid())
                .expect("a track that was described");
            let track = tracks.get_mut(track).expect("described");
            take(track, event, packet.timestamp(), &names);
        }
    }
    for (name, track) in &tracks {
        assert!(track.open.is_empty(), "{name} ends with {:?}", track.open);
    }
    tracks
}

fn take(track: &mut Track, event: &TrackEvent, at: u64, names: &[HashMap<u64, String>; 3]) {
    let [categories, events, annotations] = names;
    let describe = |slice: &mut Slice| {
        for annotation in &event.annotations {
            let name = annotations[&annotation.name_iid()].clone();
            if let Some(number) = annotation.uint_value {
                slice.numbers.insert(name, number);
            } else {
                slice
                    .texts
                    .insert(name, annotation.string_value().to_owned());
            }
        }
    };
    match event.r#type() {
        SLICE_BEGIN => {
            let mut slice = Slice {
                name: events[&event.name_iid()].clone(),
                category: categories[&event.category_iids[0]].clone(),
                start: at,
                depth: track.open.len(),
                flows: [&event.flow_ids[..], &event.terminating_flow_ids].concat(),
                ..Slice::default()
            };
            describe(&mut slice);
            track.open.push(slice);
        }
        SLICE_END => {
            let mut slice = track.open.pop().expect("an end has a begin");
            slice.end = at;
            assert!(slice.start <= slice.end, "{slice:?}");
            describe(&mut slice);
            track.slices.push(slice);
        }
        INSTANT => track.instants.push(events[&event.name_iid()].clone()),
        COUNTER => track.last_count = event.counter_value(),
        other => panic!("type {other}"),
    }
}

fn number(value: &Value, key: &str) -> u64 {
    value[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key} in {value}"))
}

/// Asserts that the slices of a track do not overlap.
fn assert_apart(name: &str, slices: &mut [Slice]) {
    slices.sort_by_key(|slice| (slice.start, slice.end));
    for pair in slices.windows(2) {
        assert!(pair[0].end <= pair[1].start, "{name}: {pair:?}");
    }
}

/// Compares the trace of a run of one guest with its summary.
fn assert_consistent(ran: &Ran, mut tracks: HashMap<String, Track>) {
    let summary = ran.summary();
    assert_eq!(
        ran.complaints(),
        [""; 0],
        "nothing was lost, or else it is said"
    );
    let lost = &tracks["host CPUs"].instants;
    assert!(lost.is_empty(), "{lost:?}");

    let mut turns = Vec::new();
    let cpus: Vec<u64> = summary["host_cpus"]
        .as_array()
        .expect("CPUs")
        .iter()
        .filter_map(Value::as_u64)
        .collect();
    for cpu in cpus {
        let track = tracks
            .get_mut(&format!("cpu {cpu}"))
            .expect("a track for each CPU");
        assert!(
            track.slices.iter().all(|slice| slice.depth == 0),
            "turns do not nest"
        );
        assert_apart("turns on one CPU", &mut track.slices);
        turns.append(&mut track.slices);
    }
    let vcpus = summary["guests"][0]["vcpus"].as_array().expect("vCPUs");
    for (index, vcpu) in vcpus.iter().enumerate() {
        let name = format!("v{index}");
        let ran_ns = |turns: &mut dyn Iterator<Item = &Slice>| -> u64 {
            turns
                .map(|turn| turn.numbers.get("ran_ns").copied().unwrap_or(0))
                .sum()
        };
        let who = |turn: &Slice| turn.name.split(' ').next().unwrap_or_default().to_owned();
        let mut own = turns.iter().filter(|turn| who(turn) == name);
        assert_eq!(ran_ns(&mut own), number(vcpu, "ran_ns"), "{name} ran");
        let mut paid = turns.iter().filter(|turn| turn.texts["donor"] == name);
        let for_runs = number(vcpu, "charged_ns") - number(vcpu, "elsewhere_ns");
        assert_eq!(ran_ns(&mut paid), for_runs, "{name} paid");
        let carried = |turn: &&Slice| turn.category == "proxied";
        let mut donated = turns
            .iter()
            .filter(carried)
            .filter(|turn| turn.texts["donor"] == name);
        assert_eq!(
            ran_ns(&mut donated),
            number(vcpu, "donated_ns"),
            "{name} donated"
        );
        let last = tracks[&format!("{name} donated")].last_count;
        assert_eq!(last as u64, number(vcpu, "donated_ns"), "{name}'s counter");

        let track = tracks.get_mut(&name).expect("a track for each vCPU");
        let mut states: Vec<Slice> = track
            .slices
            .iter()
            .filter(|s| s.depth == 0)
            .cloned()
            .collect();
        assert_apart(&name, &mut states);
        let deferrals = track.slices.iter().filter(|slice| slice.depth == 1).count();
        assert_eq!(
            deferrals as u64,
            number(vcpu, "deferrals"),
            "{name} deferrals"
        );
    }

    // Every proxied turn has an arrow that begins at the donor's track and passes the vCPU that runs.
    let mut flows = HashSet::new();
    for turn in turns.iter().filter(|turn| turn.category == "proxied") {
        let [flow] = turn.flows[..] else {
            panic!("one arrow: {turn:?}")
        };
        assert!(flows.insert(flow), "arrow {flow} twice");
        let donor = &turn.texts["donor"];
        let run = turn.name.split(' ').next().unwrap_or_default();
        assert_eq!(turn.name, format!("{run} on {donor}'s budget"));
        for (track, starts) in [
            (format!("{donor} budget"), "pays for"),
            (run.to_owned(), "runs on"),
        ] {
            let slices = tracks[&track].slices.iter();
            let found: Vec<_> = slices.filter(|slice| slice.flows.contains(&flow)).collect();
            assert_eq!(found.len(), 1, "arrow {flow} on {track}: {found:?}");
            assert!(found[0].name.starts_with(starts), "{found:?}");
            assert_eq!(found[0].start, turn.start, "{found:?} and {turn:?}");
        }
    }
    for turn in turns.iter().filter(|turn| turn.category == "run") {
        assert!(turn.flows.is_empty(), "{turn:?}");
    }
}

fn traced(name: &str, guest: &str, flags: &[&str]) -> (Ran, HashMap<String, Track>) {
    let config = file(&format!("{name}.toml"), guest.as_bytes());
    let path = file(&format!("{name}.perfetto"), b"");
    let (config, trace) = (config.to_string_lossy(), path.to_string_lossy());
    let mut words = vec!["run", &*config, "--summary", "json", "--trace", &*trace];
    words.extend(flags);
    let ran = baton(&words);
    assert_eq!(ran.code, 0, "{ran:?}");
    let tracks = read(&path);
    (ran, tracks)
}

#[test]
fn a_waiter_that_carries_a_throttled_holder_is_in_the_trace_as_it_was_counted() {
    let (ran, tracks) = traced(
        "traced-inversion",
        "[[guest]]\nname = \"inversion\"\ncpus = 2\n\
         cmdline = \"workload=throttled-holder hold=2ms outside=1ms seconds=1 hints=on\"\n\
         vcpu_reservations = [\"1ms/100ms,hard\", \"5ms/10ms,hard\"]\n",
        &["--defer", "off", "--timeline"],
    );
    assert!(
        tracks["v1 budget"]
            .slices
            .iter()
            .any(|slice| slice.name == "pays for v0")
    );
    assert!(
        tracks["v0"]
            .slices
            .iter()
            .any(|slice| slice.name == "runs on v1's budget")
    );
    assert!(
        tracks["v0 budget"]
            .slices
            .iter()
            .any(|slice| slice.name == "throttled")
    );
    assert_consistent(&ran, tracks);
}

#[test]
fn an_overcommitted_ticket_lock_is_in_the_trace_as_it_was_counted() {
    for threads in ["off", "on"] {
        let (ran, tracks) = traced(
            &format!("traced-lock-{threads}"),
            "[[guest]]\nname = \"lock\"\ncpus = 4\n\
             cmdline = \"lock=ticket hints=on acquisitions=2000\"\n",
            &["--vcpu-threads", threads],
        );
        assert_consistent(&ran, tracks);
    }
}

#[test]
fn every_exit_of_a_vcpu_is_on_the_track_of_its_cpu() {
    let (ran, tracks) = traced(
        "traced-boot",
        "[[guest]]\nname = \"boot\"\ncpus = 2\ncmdline = \"workload=boot\"\n",
        &[],
    );
    let exits: Vec<&String> = tracks
        .iter()
        .filter(|(name, _)| name.starts_with("cpu "))
        .flat_map(|(_, track)| &track.instants)
        .filter(|name| *name != "kick")
        .collect();
    let vcpus = ran.summary()["guests"][0]["vcpus"]
        .as_array()
        .expect("vCPUs")
        .clone();
    let rang: u64 = vcpus
        .iter()
        .map(|vcpu| number(&vcpu["exits"], "doorbells"))
        .sum();
    assert_eq!(
        exits.iter().filter(|name| **name == "doorbell").count() as u64,
        rang,
        "{exits:?}"
    );
    assert!(
        exits.iter().any(|name| *name == "ended"),
        "it ended: {exits:?}"
    );
    assert_consistent(&ran, tracks);
}

#[test]
fn every_exit_by_a_signal_is_on_the_track_of_its_cpu() {
    // Two vCPUs compute on one host CPU, so each turn ends by a signal.
    let hog =
        |name| format!("[[guest]]\nname = \"{name}\"\ncmdline = \"workload=hog seconds=0.1\"\n");
    let (ran, tracks) = traced(
        "traced-signals",
        &(hog("one") + &hog("two")),
        &["--host-cpus", &common::first_cpu(), "--vcpu-threads", "off"],
    );
    let told = tracks
        .iter()
        .filter(|(name, _)| name.starts_with("cpu "))
        .flat_map(|(_, track)| &track.instants)
        .filter(|name| *name == "interrupted")
        .count() as u64;
    let summary = ran.summary();
    let vcpus = (0..2).map(|guest| &summary["guests"][guest]["vcpus"][0]);
    let (mut preempted, mut signals) = (0, 0);
    for vcpu in vcpus {
        preempted += number(vcpu, "preemptions");
        signals += number(&vcpu["exits"], "interrupted");
    }
    assert!(preempted > 0, "they took turns: {summary}");
    // A signal without a reason is handled before the executor is involved.
    assert!((preempted..=signals).contains(&told), "{told}: {summary}");
}

#[test]
fn a_trace_that_cannot_be_written_keeps_the_run_from_starting() {
    let ran = baton(&[
        "run",
        "--trace",
        "/nonexistent/out.perfetto",
        "--cmdline",
        "workload=boot",
    ]);
    let sentence = ran.one_sentence();
    assert!(
        sentence.contains("cannot write the trace to /nonexistent/out.perfetto"),
        "{sentence}"
    );
}

#[test]
fn the_hosts_scheduler_has_no_decisions_to_trace() {
    for flag in [["--trace", "x.perfetto"], ["--metrics", "file:x.prom"]] {
        let ran = baton(&["run", "--sched", "host", flag[0], flag[1]]);
        assert!(
            ran.one_sentence().contains("give --sched baton, or leave"),
            "{ran:?}"
        );
    }
}
