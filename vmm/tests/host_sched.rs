//! The built-in guest on real KVM, with a thread for each vCPU under the host's scheduler.

mod common;

use common::{GUESTS_FAILED, baton, file, spawn_and_interrupt};

/// Runs a lock workload with a fixed number of acquisitions and checks its figures.
fn counter_is_right(cpus: u64, sched: &str) {
    let cpus_flag = cpus.to_string();
    let ran = baton(&[
        "run",
        "--sched",
        sched,
        "--cpus",
        &cpus_flag,
        "--summary",
        "json",
        "--cmdline",
        "lock=tas acquisitions=500",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let summary = ran.summary();
    let guest = &summary["guests"][0];
    assert_eq!(guest["exit_code"], 0);
    assert_eq!(guest["workload"]["acquisitions"], 500 * cpus);
    assert_eq!(guest["workload"]["counter_ok"], true);
    let vcpus = guest["vcpus"].as_array().expect("vCPUs");
    assert_eq!(vcpus.len() as u64, cpus);
    for vcpu in vcpus {
        assert_eq!(vcpu["results"]["acquisitions"], 500);
        assert!(vcpu["ran_ns"].as_u64() > Some(0));
        assert!(vcpu["exits"]["port_out"].as_u64() > Some(0));
    }
}

#[test]
fn one_vcpu_boots_and_its_counter_is_right() {
    counter_is_right(1, "host");
}

#[test]
fn four_vcpus_start_each_other_and_their_counter_is_right() {
    counter_is_right(4, "host");
}

#[test]
fn guest_that_fails_gives_its_own_exit_code() {
    let ran = baton(&["run", "--sched", "host", "--cmdline", "no-such-word=1"]);
    assert_eq!(ran.code, baton_abi::testdev::EXIT_USAGE as i32, "{ran:?}");
    assert!(
        ran.stderr.contains("guest guest: failed with code 2"),
        "{ran:?}"
    );
}

#[test]
fn triple_fault_ends_only_its_guest() {
    let config = file(
        "triple.toml",
        br#"
        sched = "host"
        summary = "json"
        [[guest]]
        name = "bad"
        cpus = 2
        cmdline = "workload=triplefault"
        [[guest]]
        name = "good"
        cpus = 2
        cmdline = "lock=tas acquisitions=500"
        "#,
    );
    let ran = baton(&["run", &config.to_string_lossy()]);
    assert_eq!(ran.code, GUESTS_FAILED, "{ran:?}");
    let summary = ran.summary();
    let [bad, good] = [&summary["guests"][0], &summary["guests"][1]];
    assert!(
        bad["end"]
            .as_str()
            .expect("end")
            .starts_with("triple fault"),
        "{bad}"
    );
    assert_eq!(good["exit_code"], 0, "{good}");
    assert_eq!(good["workload"]["counter_ok"], true);
    // With several guests, each line has the name of its guest.
    assert!(ran.stderr.contains("[good] "), "{ran:?}");
}

#[test]
fn guest_that_never_ends_is_stopped_when_the_duration_is_over() {
    let ran = baton(&[
        "run",
        "--sched",
        "host",
        "--cpus",
        "2",
        "--duration",
        "300ms",
        "--summary",
        "json",
        "--cmdline",
        "workload=hog seconds=0",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let guest = &ran.summary()["guests"][0];
    assert!(
        guest["end"].as_str().expect("end").starts_with("stopped"),
        "{guest}"
    );
}

#[test]
fn idle_guest_is_stopped_too() {
    let ran = baton(&[
        "run",
        "--sched",
        "host",
        "--cpus",
        "2",
        "--duration",
        "300ms",
        "--summary",
        "json",
        "--cmdline",
        "workload=halt seconds=60",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn ctrl_c_stops_the_guests_and_prints_the_summary() {
    for cmdline in ["workload=hog seconds=0", "workload=halt seconds=60"] {
        let ran = spawn_and_interrupt(&[
            "run",
            "--sched",
            "host",
            "--cpus",
            "2",
            "--summary",
            "json",
            "--cmdline",
            cmdline,
        ]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(ran.summary()["guests"][0]["ok"], true);
    }
}

#[test]
fn doorbell_storm_of_nonsense_changes_nothing_and_is_counted() {
    let ran = baton(&[
        "run",
        "--sched",
        "host",
        "--cpus",
        "2",
        "--summary",
        "json",
        "--cmdline",
        "workload=doorbell-storm seconds=0.2",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let vcpus = &ran.summary()["guests"][0]["vcpus"];
    let rings: u64 = ["doorbells", "nonsense"]
        .iter()
        .map(|kind| vcpus[0]["exits"][kind].as_u64().expect("count"))
        .sum();
    assert!(rings > 0, "{vcpus}");
}

#[test]
fn kernel_that_is_not_there_gives_one_sentence() {
    let ran = baton(&["run", "--sched", "host", "--kernel", "/nowhere/vmlinux"]);
    let sentence = ran.one_sentence();
    assert!(
        sentence.contains("cannot read the kernel /nowhere/vmlinux"),
        "{sentence}"
    );
}

#[test]
fn kernel_that_is_no_elf_file_gives_one_sentence() {
    const NO_KERNEL: &str = "cannot be booted: ";
    let shared = {
        // Of type ET_DYN, like most programs.
        let mut image = guest_tests::GUEST_ELF.to_vec();
        image[16] = 3;
        image
    };
    for (name, content, part) in [
        ("shared.elf", &shared[..], NO_KERNEL),
        ("empty.elf", b"", NO_KERNEL),
        (
            "text.elf",
            b"#!/bin/sh\necho this is a script and not a kernel\n",
            NO_KERNEL,
        ),
        (
            "cut.elf",
            b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0",
            "is cut short",
        ),
    ] {
        let kernel = file(name, content);
        let ran = baton(&[
            "run",
            "--sched",
            "host",
            "--kernel",
            &kernel.to_string_lossy(),
        ]);
        let sentence = ran.one_sentence();
        assert!(sentence.contains(part), "{sentence}");
    }
}

#[test]
fn kernel_that_does_not_fit_gives_one_sentence() {
    // The built-in kernel, loaded at 3 GiB, which is beyond its 64 MiB of memory.
    let mut image = guest_tests::GUEST_ELF.to_vec();
    let headers = u64::from_le_bytes(image[32..40].try_into().expect("e_phoff")) as usize;
    let size = usize::from(u16::from_le_bytes([image[54], image[55]]));
    let count = usize::from(u16::from_le_bytes([image[56], image[57]]));
    for header in 0..count {
        let paddr = headers + header * size + 24;
        image[paddr..paddr + 8].copy_from_slice(&0xc000_0000u64.to_le_bytes());
    }
    let kernel = file("far.elf", &image);
    let ran = baton(&[
        "run",
        "--sched",
        "host",
        "--kernel",
        &kernel.to_string_lossy(),
    ]);
    assert!(ran.one_sentence().contains("does not fit"), "{ran:?}");
}

#[test]
fn host_cpu_that_is_not_there_gives_one_sentence() {
    let ran = baton(&["run", "--sched", "host", "--host-cpus", "8000"]);
    assert!(
        ran.one_sentence().contains("host CPU 8000 cannot be used"),
        "{ran:?}"
    );
}

#[test]
fn what_the_hosts_scheduler_cannot_keep_is_refused_with_one_sentence_and_a_flag_overrides_a_file() {
    for (sched, asked) in [
        ("host", &["--reservation", "1ms/10ms,hard"][..]),
        ("host", &["--vcpu-reservation", "0=1ms/10ms,soft"]),
        ("host-deadline", &["--reservation", "1ms/10ms,soft"]),
        ("host", &["--weight", "500"]),
        ("host", &["--proxy", "on"]),
        ("host", &["--defer", "50us"]),
        ("host", &["--slice", "4ms"]),
        ("host", &["--timeline"]),
        ("host", &["--vcpu-threads", "off"]),
    ] {
        let ran = baton(&[&["run", "--sched", sched][..], asked].concat());
        let sentence = ran.one_sentence();
        let refusals = ["cannot keep", "does not support"];
        assert!(
            refusals.iter().any(|words| sentence.contains(words)),
            "{asked:?}: {sentence}"
        );
        assert!(sentence.contains("--sched baton"), "{asked:?}: {sentence}");
    }
    let text = "sched = \"host\"\nproxy = \"on\"\n[[guest]]\ncmdline = \"workload=boot\"\n";
    let config = file("asks-for-more.toml", text.as_bytes());
    let config = config.to_string_lossy();
    assert!(
        baton(&["run", &config])
            .one_sentence()
            .contains("--proxy on")
    );
    assert_eq!(baton(&["run", &config, "--sched", "baton"]).code, 0);
    assert_eq!(baton(&["run", &config, "--proxy", "off"]).code, 0);
}

#[test]
fn check_says_that_this_host_can_run_guests() {
    let ran = baton(&["check"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("This host can run guests"), "{ran:?}");
}

#[test]
fn guests_with_more_memory_than_there_is_are_refused_unless_the_user_says_so() {
    let size = ["run", "--sched", "host", "--memory", "1T"];
    let sentence = baton(&size);
    let sentence = sentence.one_sentence();
    assert!(
        sentence.contains("1T of memory together, more than"),
        "{sentence}"
    );
    let overcommitted = ["--overcommit-memory", "--cmdline", "workload=boot"];
    let ran = baton(&[&size[..], &overcommitted[..]].concat());
    assert_eq!((ran.code, &*ran.stderr), (0, ""), "{ran:?}");
}
