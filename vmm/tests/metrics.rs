//! The metrics that a real run offers.

mod common;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use common::{Running, baton, file};

/// The samples of a text in the format OpenMetrics, by name and labels. Also checks the form of the text.
fn samples(text: &str) -> HashMap<String, f64> {
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    samples_of(text)
}

/// The samples of a text in the classic format.
fn classic_samples(text: &str) -> HashMap<String, f64> {
    // Readers of that format find the type of a counter by the whole name of its samples.
    let mut types = HashMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        if line.starts_with("# TYPE ") {
            types.insert(words.nth(2).expect(line), words.next().expect(line));
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().expect(line);
            match types.get(name) {
                Some(kind) => assert_eq!(*kind == "counter", name.ends_with("_total"), "{line}"),
                None => assert!(line.starts_with("baton_vcpu_proxy_chain_length_"), "{line}"),
            }
        }
    }
    assert_eq!(types["baton_vcpu_proxy_chain_length"], "histogram");
    assert!(
        !text.contains("# EOF") && !text.contains("# UNIT"),
        "{text}"
    );
    samples_of(text)
}

fn samples_of(text: &str) -> HashMap<String, f64> {
    let mut samples = HashMap::new();
    let mut family = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap_or_default();
        } else if !line.starts_with('#') {
            let (sample, value) = line.rsplit_once(' ').expect(line);
            assert!(sample.starts_with(family), "{line} under {family}");
            let value = value.parse().expect(line);
            assert!(
                samples.insert(sample.to_owned(), value).is_none(),
                "{line} twice"
            );
        }
    }
    samples
}

/// Starts a run without an end that offers metrics at `target`.
fn start(target: &str) -> Running {
    let cmdline = "lock=ticket hints=on seconds=0";
    common::start(&[
        "run",
        "--cpus",
        "2",
        "--metrics",
        target,
        "--cmdline",
        cmdline,
    ])
}

/// Makes attempts until one succeeds.
fn until<T>(run: &mut Running, mut attempt: impl FnMut() -> Option<T>) -> T {
    let mut result = None;
    run.until("the attempt succeeds", || {
        result = attempt();
        result.is_some()
    });
    result.expect("a result")
}

/// Requests `path` and returns the head and the body of the answer.
fn get(mut stream: impl Read + Write, path: &str) -> (String, String) {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("receives");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    (head.to_owned(), body.to_owned())
}

/// A port that is free at the moment.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

#[test]
fn a_file_ends_with_the_numbers_of_the_summary() {
    let path = file("summary.prom", b"");
    let ran = baton(&[
        "run",
        "--cpus",
        "4",
        "--cmdline",
        "lock=ticket hints=on acquisitions=2000",
        "--summary",
        "json",
        "--metrics",
        &format!("file:{}", path.display()),
    ]);
    assert_eq!((ran.code, ran.complaints()), (0, vec![]), "{ran:?}");
    let samples = classic_samples(&std::fs::read_to_string(&path).expect("a file"));
    let summary = ran.summary();
    let vcpus = summary["guests"][0]["vcpus"].as_array().expect("vCPUs");
    for (index, vcpu) in vcpus.iter().enumerate() {
        let number = |key: &str| vcpu[key].as_u64().expect(key) as f64;
        let sample = |name: &str| {
            let sample = format!("baton_vcpu_{name}{{guest=\"guest\",vcpu=\"{index}\"}}");
            *samples
                .get(&sample)
                .unwrap_or_else(|| panic!("no {sample}"))
        };
        for (name, key) in [
            ("run", "ran_ns"),
            ("charged", "charged_ns"),
            ("elsewhere", "elsewhere_ns"),
            ("sleep", "sleep_ns"),
            ("devices", "devices_ns"),
            ("disturbing", "disturbing_ns"),
            ("donated", "donated_ns"),
            ("received", "received_ns"),
            ("runnable_wait", "waited_ns"),
            ("throttled", "throttled_ns"),
        ] {
            let seconds = sample(&format!("{name}_seconds_total"));
            assert!(
                (seconds * 1e9 - number(key)).abs() < 1.0,
                "{name}: {seconds} and {vcpu}"
            );
        }
        for (name, key) in [
            ("proxied", "proxied"),
            ("holder_preemptions", "holder_preemptions"),
            ("deferrals", "deferrals"),
            ("switches", "switches"),
            ("migrations", "migrations"),
            ("deadline_misses", "deadline_misses"),
        ] {
            assert_eq!(sample(&format!("{name}_total")), number(key), "{name}");
        }
        assert!(sample("proxy_chain_length_count") >= number("proxied"));
    }
    let source = "baton_guest_hint_source{guest=\"guest\",source=\"page\"}";
    assert_eq!(samples.get(source), Some(&1.0));
    assert_eq!(summary["guests"][0]["hints"], "page");
    let executors = summary["executors"].as_array().expect("executors");
    let cpus = summary["host_cpus"].as_array().expect("CPUs");
    for (cpu, executor) in cpus.iter().zip(executors) {
        let sample = format!("baton_executor_busy_seconds_total{{cpu=\"{cpu}\"}}");
        let busy = executor["busy_ns"].as_u64().expect("busy") as f64;
        assert!(
            (samples[&sample] * 1e9 - busy).abs() < 1.0,
            "{sample} and {executor}"
        );
    }
}

#[test]
fn a_scrape_over_tcp_gets_counters_that_only_grow() {
    let port = free_port();
    let mut run = start(&format!("127.0.0.1:{port}"));
    let connect = || TcpStream::connect(("127.0.0.1", port)).ok();
    let (head, first) = get(until(&mut run, connect), "/metrics");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("\r\nContent-Type: application/openmetrics-text; version=1.0.0;"),
        "{head}"
    );
    // A request as for a proxy; and one by a client that only reads the format before OpenMetrics.
    let (head, _) = get(
        connect().expect("it still listens"),
        "http://localhost/metrics",
    );
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let old = "/metrics HTTP/1.1\r\nAccept: text/plain;version=0.0.4, */*;q=0.1\r\nX: ";
    let (head, classic) = get(connect().expect("it still listens"), old);
    assert!(
        head.contains("\r\nContent-Type: text/plain; version=0.0.4;"),
        "{head}"
    );
    assert_eq!(classic_samples(&classic).len(), samples(&first).len());
    let (head, _) = get(connect().expect("it still listens"), "/");
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    // A client that sends nothing does not delay others for long.
    let silent = connect().expect("it still listens");
    let (_, second) = get(connect().expect("it still listens"), "/metrics");
    drop(silent);
    let second = samples(&second);
    // The source of hints is no counter: a guest registers its pages when it has begun.
    let counts = |sample: &str| !sample.starts_with("baton_guest_hint_source");
    let first = samples(&first).into_iter();
    for (sample, value) in first.filter(|(sample, _)| counts(sample)) {
        assert!(
            second[&sample] >= value,
            "{sample}: {value}, then {}",
            second[&sample]
        );
    }
}

#[test]
fn a_scrape_over_a_unix_socket_takes_the_place_of_a_dead_one_only() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("metrics.sock");
    let _ = std::fs::remove_file(&path);
    // A socket without a listener.
    drop(UnixListener::bind(&path).expect("a socket"));
    let target = format!("unix:{}", path.display());
    let mut run = start(&target);
    let stream = until(&mut run, || UnixStream::connect(&path).ok());
    let (_, text) = get(stream, "/metrics");
    assert!(
        samples(&text).contains_key("baton_vcpu_run_seconds_total{guest=\"guest\",vcpu=\"1\"}")
    );
    let second = baton(&["run", "--cmdline", "workload=boot", "--metrics", &target]);
    assert!(
        second
            .one_sentence()
            .contains("cannot offer metrics at unix:"),
        "{second:?}"
    );
    assert!(
        UnixStream::connect(&path).is_ok(),
        "the first run still listens"
    );
}

#[test]
fn a_target_that_cannot_be_parsed_is_refused_with_examples() {
    let ran = baton(&["run", "--metrics", "9469"]);
    assert!(
        ran.stderr.contains("must be as in 127.0.0.1:9469"),
        "{ran:?}"
    );
}
