//! The trace of a real run, compared with the counters of the run.

mod common;

use std::collections::{HashMap, HashSet};
use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
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

    let mut slices = Vec::new();
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
            "slices do not nest"
        );
        assert_apart("slices on one CPU", &mut track.slices);
        slices.append(&mut track.slices);
    }
    let vcpus = summary["guests"][0]["vcpus"].as_array().expect("vCPUs");
    for (index, vcpu) in vcpus.iter().enumerate() {
        let name = format!("v{index}");
        let ran_ns = |slices: &mut dyn Iterator<Item = &Slice>| -> u64 {
            slices
                .map(|slice| slice.numbers.get("ran_ns").copied().unwrap_or(0))
                .sum()
        };
        let who = |slice: &Slice| slice.name.split(' ').next().unwrap_or_default().to_owned();
        let mut own = slices.iter().filter(|slice| who(slice) == name);
        assert_eq!(ran_ns(&mut own), number(vcpu, "ran_ns"), "{name} ran");
        let mut paid = slices.iter().filter(|slice| slice.texts["donor"] == name);
        let for_runs = number(vcpu, "charged_ns") - number(vcpu, "elsewhere_ns");
        assert_eq!(ran_ns(&mut paid), for_runs, "{name} paid");
        let carried = |slice: &&Slice| slice.category == "proxied";
        let mut donated = slices
            .iter()
            .filter(carried)
            .filter(|slice| slice.texts["donor"] == name);
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

    // Every proxied slice has an arrow that begins at the donor's track and passes the vCPU that runs.
    let mut flows = HashSet::new();
    for slice in slices.iter().filter(|slice| slice.category == "proxied") {
        let [flow] = slice.flows[..] else {
            panic!("one arrow: {slice:?}")
        };
        assert!(flows.insert(flow), "arrow {flow} twice");
        let donor = &slice.texts["donor"];
        let run = slice.name.split(' ').next().unwrap_or_default();
        assert_eq!(slice.name, format!("{run} on {donor}'s budget"));
        for (track, starts) in [
            (format!("{donor} budget"), "pays for"),
            (run.to_owned(), "runs on"),
        ] {
            let slices = tracks[&track].slices.iter();
            let found: Vec<_> = slices.filter(|slice| slice.flows.contains(&flow)).collect();
            assert_eq!(found.len(), 1, "arrow {flow} on {track}: {found:?}");
            assert!(found[0].name.starts_with(starts), "{found:?}");
            assert_eq!(found[0].start, slice.start, "{found:?} and {slice:?}");
        }
    }
    for slice in slices.iter().filter(|slice| slice.category == "run") {
        assert!(slice.flows.is_empty(), "{slice:?}");
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
    // Two vCPUs compute on one host CPU, so each slice ends by a signal.
    let hog =
        |name| format!("[[guest]]\nname = \"{name}\"\ncmdline = \"workload=hog seconds=0.1\"\n");
    let (ran, tracks) = traced(
        "traced-signals",
        &(hog("one") + &hog("two")),
        &["--host-cpus", &common::first_cpu(), "--vcpu-threads", "off"],
    );
    let marks = tracks
        .iter()
        .filter(|(name, _)| name.starts_with("cpu "))
        .flat_map(|(_, track)| &track.instants)
        .filter(|name| *name == "interrupted")
        .count() as u64;
    let summary = ran.summary();
    let vcpus = (0..2).map(|guest| &summary["guests"][guest]["vcpus"][0]);
    let preempted: u64 = vcpus.map(|vcpu| number(vcpu, "preemptions")).sum();
    assert!(preempted > 0, "they took slices: {summary}");
    // Each preemption is one exit by a signal at least. There may be more marks than exits of KVM_RUN, because a
    // signal that comes before the entry is reported as well.
    assert!(marks >= preempted, "{marks}: {summary}");
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

/// A run that writes its trace to `path`, which cannot take all of it. Gives what it printed on standard error.
fn run_with_a_trace_that_fails(path: &str) -> String {
    let ran = baton(&[
        "run",
        "--cpus",
        "4",
        "--cmdline",
        "lock=ticket hints=on acquisitions=2000",
        "--summary",
        "json",
        "--trace",
        path,
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let guest = &ran.summary()["guests"][0];
    assert_eq!(guest["workload"]["acquisitions"], 8_000, "{guest}");
    ran.stderr
}

#[test]
fn a_full_disk_under_the_trace_does_not_hide_the_summary() {
    let complaint = run_with_a_trace_that_fails("/dev/full");
    assert!(
        complaint.contains("cannot write the trace to /dev/full: No space left"),
        "{complaint}"
    );
}

#[test]
fn a_trace_into_a_pipe_that_is_not_read_does_not_hide_the_summary() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("unread.perfetto");
    let _ = std::fs::remove_file(&path);
    let pipe = std::ffi::CString::new(path.to_str().expect("utf-8")).expect("a path");
    // SAFETY: the path is a string that ends in a zero.
    assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
    // It keeps the pipe open, and never reads.
    let reader = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&path)
        .expect("a reader");
    // SAFETY: no memory is involved; the descriptor is open.
    let size = unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    assert_eq!(size, 4096, "much less than a trace");
    let complaint = run_with_a_trace_that_fails(path.to_str().expect("utf-8"));
    assert!(
        complaint.contains("unread.perfetto is not whole"),
        "{complaint}"
    );
    drop(reader);
}
