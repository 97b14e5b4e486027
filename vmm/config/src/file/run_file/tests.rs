use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::console::ConsoleConfig;
use crate::executor_priority::ExecutorPriority;
use crate::guest::{HintSource, KernelSource};
use crate::output::SummaryForm;
use crate::sched::{Given, LateHalts, SchedMode, VcpuThreads};
use crate::vsock::VsockConfig;

fn parsed(text: &str) -> RunConfig {
    parse(text, Path::new("/guests")).expect(text)
}

fn refused(text: &str) -> String {
    let error = parse(text, Path::new("/guests"))
        .expect_err(text)
        .to_string();
    assert!(!error.contains('\n'), "more than one line: {error}");
    error
}

#[test]
fn host_cpus_are_isolated_or_shared() {
    assert!(!parsed("[[guest]]\n").isolate);
    assert!(parsed("isolate = true\n[[guest]]\n").isolate);
    let both = refused("isolate = true\nshare_cpus = true\n[[guest]]\n");
    assert!(
        both.contains("leave --isolate or --share-cpus out"),
        "{both}"
    );
}

#[test]
fn top_level_keys_are_the_flags() {
    let config = parsed(
        r#"
        host_cpus = "0-1"
        share_cpus = true
        sched = "host-deadline"
        proxy = "off"
        defer = "off"
        slice = "2ms"
        vcpu_threads = "on"
        executor_priority = "2"
        require_delivery = true
        late_halts = "allow"
        duration = "10s"
        shutdown_timeout = "0"
        summary = "json"
        overcommit_memory = true
        [[guest]]
        "#,
    );
    let expected = RunConfig {
        guests: vec![GuestConfig::new("guest1")],
        host_cpus: vec![0, 1],
        share_cpus: true,
        sched: SchedMode::HostDeadline,
        proxy: false,
        defer: None,
        slice: Duration::from_millis(2),
        given: Given {
            proxy: true,
            defer: true,
            slice: true,
        },
        vcpu_threads: VcpuThreads::On,
        executor_priority: ExecutorPriority::Fifo(2),
        require_delivery: true,
        late_halts: LateHalts::Allow,
        duration: Some(Duration::from_secs(10)),
        shutdown_timeout: Duration::ZERO,
        summary: SummaryForm::Json,
        overcommit_memory: true,
        ..RunConfig::default()
    };
    assert_eq!(config, expected);
}

#[test]
fn a_guest_table_describes_all_of_a_guest() {
    let config = parsed(
        r#"
        [[guest]]
        name = "db"
        kernel = "vmlinux"
        cpus = 2
        memory = "512M"
        cmdline = "quiet"
        vcpu_reservations = ["1ms/100ms,soft", ""]
        weight = 7
        console = "unix:db.sock"
        vcpu_host_cpus = ["", "0,1"]
        "#,
    );
    let guest = &config.guests[0];
    assert_eq!(
        guest.kernel,
        KernelSource::Path(PathBuf::from("/guests/vmlinux"))
    );
    assert_eq!((guest.cpus, guest.memory, guest.weight), (2, 512 << 20, 7));
    assert_eq!(guest.cmdline, "quiet");
    assert_eq!(
        guest.console,
        ConsoleConfig::Unix(PathBuf::from("/guests/db.sock"))
    );
    assert_eq!(guest.reservations[0], "1ms/100ms,soft".parse().ok());
    assert_eq!(guest.reservations[1], None);
    assert_eq!(guest.host_cpus, [None, Some(vec![0, 1])]);
}

#[test]
fn reservation_goes_to_each_vcpu_and_shared_is_split() {
    let config = parsed(
        r#"
        [[guest]]
        cpus = 2
        reservation = "5ms/10ms"
        [[guest]]
        cpus = 4
        shared_reservation = "20ms/10ms,soft"
        "#,
    );
    assert_eq!(
        config.guests[0].reservations,
        vec!["5ms/10ms".parse().ok(); 2]
    );
    assert_eq!(
        config.guests[1].reservations,
        vec!["5ms/10ms,soft".parse().ok(); 4]
    );
}

#[test]
fn count_makes_copies_with_names_of_their_own() {
    let config = parsed("[[guest]]\nname = \"web\"\ncount = 3\n[[guest]]\n");
    let names: Vec<&str> = config.guests.iter().map(|g| g.name.as_str()).collect();
    assert_eq!(names, ["web-1", "web-2", "web-3", "guest2"]);
}

#[test]
fn unknown_keys_are_refused_with_their_line() {
    assert!(refused("slicee = \"1ms\"\n[[guest]]\n").contains("slicee"));
    let error = refused("[[guest]]\ncpus = 1\nmem = \"64M\"\n");
    assert!(error.contains("line 3") && error.contains("mem"), "{error}");
}

#[test]
fn mistakes_are_named_with_what_would_be_right() {
    for (text, part) in [
        ("", "no guest"),
        (
            "sched = \"fifo\"\n[[guest]]",
            "baton, round-robin, host, host-deadline",
        ),
        ("proxy = \"yes\"\n[[guest]]", "\"on\" or \"off\""),
        ("slice = \"4\"\n[[guest]]", "as in 50us"),
        ("slice = \"2s\"\n[[guest]]", "between 100us and 1s"),
        ("[[guest]]\nmemory = \"1K\"", "4M to 1T"),
        ("[[guest]]\ncpus = 0", "1 to 254"),
        ("[[guest]]\nweight = 0", "1 to 10000"),
        (
            "[[guest]]\nhints = \"guess\"",
            "hints is 'guess', must be one of auto, page, inferred, inferred:any, off",
        ),
        ("[[guest]]\nconsole = \"tty\"", "stdio, pty, off"),
        (
            "[[guest]]\ncount = 2\nconsole = \"unix:c\"",
            "the same console unix:/guests/c: give each its own",
        ),
        ("[[guest]]\ncount = 5000", "1 to 1024"),
        ("[[guest]]\ncount = 0", "1 to 1024"),
        ("[[guest]]\nreservation = \"5ms\"", "as in 5ms/10ms"),
        (
            "[[guest]]\ncpus = 2\nvcpu_reservations = [\"\"]",
            "one for each of 2",
        ),
        (
            "[[guest]]\nreservation = \"1ms/2ms\"\nshared_reservation = \"1ms/2ms\"",
            "exclude each other",
        ),
        (
            "[[guest]]\ncpus = 2\nshared_reservation = \"30ms/10ms\"",
            "make the budget shorter",
        ),
        (
            "host_cpus = \"0\"\n[[guest]]\nhost_cpus = \"1\"",
            "not in the pool (0)",
        ),
        ("[[guest]]\ncpus = -1", "line 2"),
        (
            "until_guest = \"db\"\n[[guest]]\nname = \"web\"\ncount = 2\n[[guest]]",
            "no guest 'db' to wait for: this run has web-1, web-2, guest2",
        ),
        (
            "until_guest = \"web\"\n[[guest]]\nname = \"web\"\ncount = 10",
            "web-8 and 2 more",
        ),
        (
            "[[guest]]\nname = \"web\"\ncount = 2\n[[guest]]\nname = \"web-2\"",
            "two guests are called 'web-2'",
        ),
        ("[[guest]]\nname = \"\"", "name is empty"),
        (
            "[[guest]]\nname = \"\\u001b[2J\"\ncpus = 0",
            "name cannot be \"\\u{1b}[2J\"",
        ),
        (
            "until_guest = \"\\u001b[2J\"\n[[guest]]",
            "no guest '\\u{1b}[2J'",
        ),
        ("nonsense", "line 1"),
    ] {
        let error = refused(text);
        assert!(error.contains(part), "{text:?}: {error}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = read(Path::new("/nowhere/host.toml")).expect_err("missing");
    assert!(error.to_string().contains("/nowhere/host.toml"));
}

#[test]
fn a_run_waits_for_all_guests_or_the_one_of_a_name() {
    let guests = "[[guest]]\nname = \"web\"\n[[guest]]\nname = \"db\"\n[[guest]]\n";
    let awaited = |text: &str| parsed(text).awaited().collect::<Vec<_>>();
    assert_eq!(awaited(guests), [0, 1, 2]);
    assert_eq!(awaited(&format!("until_guest = \"db\"\n{guests}")), [1]);
    assert_eq!(awaited(&format!("until_guest = \"guest3\"\n{guests}")), [2]);
}

#[test]
fn a_target_of_metrics_that_is_none_is_refused_with_examples() {
    let config = parsed("metrics = \"unix:/run/b.sock\"\n[[guest]]");
    assert_eq!(config.metrics, "unix:/run/b.sock".parse().ok());
    assert!(refused("metrics = \"here\"\n[[guest]]").contains("127.0.0.1:9469"));
}

#[test]
fn vsock_has_an_address_and_a_path_of_its_own() {
    let guest = |vsock: &str| format!("[[guest]]\nkernel = \"vmlinuz\"\nvsock = \"{vsock}\"\n");
    let config = parsed(&guest("cid=4294967294,path=a,b.sock"));
    assert_eq!(
        config.guests[0].vsock,
        Some(VsockConfig {
            cid: u32::MAX - 1,
            path: PathBuf::from("/guests/a,b.sock"),
        })
    );
    for (vsock, part) in [
        ("", "as in cid=3,path=/run/vm.sock"),
        ("cid=3", "as in cid=3,path=/run/vm.sock"),
        ("cid=3,path=", "as in cid=3,path=/run/vm.sock"),
        ("path=vm.sock,cid=3", "as in cid=3,path=/run/vm.sock"),
        ("cid=2,path=vm.sock", "cid is '2', must be 3 to 4294967294"),
        ("cid=4294967295,path=vm.sock", "must be 3 to 4294967294"),
        ("cid=x,path=vm.sock", "cid is 'x'"),
    ] {
        let error = refused(&guest(vsock));
        assert!(error.contains(part), "{vsock}: {error}");
    }
    let both = guest("cid=3,path=vm.sock").repeat(2);
    let error = refused(&both);
    assert!(error.contains("guests guest1 and guest2"), "{error}");
    let error = refused("[[guest]]\nvsock = \"cid=3,path=vm.sock\"");
    assert!(error.contains("give it a kernel"), "{error}");
}

#[test]
fn an_option_that_would_be_ignored_is_refused() {
    let text = refused("[[guest]]\ninitrd = \"initrd.img\"");
    assert!(text.contains("reads no RAM disk"), "{text}");
    let text = refused("[[guest]]\nreservation = \"1ms/10ms\"\nweight = 7");
    assert!(text.contains("for vCPUs without a reservation"), "{text}");
}

#[test]
fn each_guest_has_its_own_source_of_hints_and_pages_are_the_default() {
    let config = parsed(
        "[[guest]]\n[[guest]]\nhints = \"auto\"\n[[guest]]\nhints = \"inferred:any\"\n\
         [[guest]]\nhints = \"off\"",
    );
    let hints: Vec<_> = config.guests.iter().map(|guest| guest.hints).collect();
    let expected = [
        HintSource::Page,
        HintSource::Auto,
        HintSource::InferredAny,
        HintSource::Off,
    ];
    assert_eq!(hints, expected);
}

#[test]
fn symbols_are_relative_to_the_file_and_need_inferred_hints() {
    let config =
        parsed("[[guest]]\nkernel = \"k\"\nhints = \"inferred\"\nsymbols = \"System.map\"");
    let kernel = match &config.guests[0].kernel {
        KernelSource::Path(path) => path.with_file_name("System.map"),
        KernelSource::Builtin => panic!("a kernel is given"),
    };
    assert_eq!(config.guests[0].symbols, Some(kernel));
    for source in ["page", "inferred:any", "off"] {
        let text = refused(&format!(
            "[[guest]]\nkernel = \"k\"\nhints = \"{source}\"\nsymbols = \"System.map\""
        ));
        assert!(
            text.contains("symbols are used only to find the kernel's preempt count"),
            "{text}"
        );
    }
    let text = refused("[[guest]]\nhints = \"auto\"\nsymbols = \"System.map\"");
    assert!(
        text.contains("the built-in test guest needs none"),
        "{text}"
    );
}
