//! Signals: which of them end a run, how, and which do not.

mod common;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use common::{Ran, Running, baton, blocks_sigint, command, file, signal_when_ready, start};

/// A path in the directory of the test build where no file is.
fn path(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_file(&path);
    path
}

/// A named pipe without a reader or a writer.
fn pipe(name: &str) -> String {
    let path = path(name);
    let name = path.to_string_lossy().into_owned();
    let bytes = std::ffi::CString::new(name.clone()).expect("a path");
    // SAFETY: a string that lives through the call.
    assert_eq!(unsafe { libc::mkfifo(bytes.as_ptr(), 0o600) }, 0);
    name
}

/// Starts `baton` with `args` and a resource limit, with the signal `ignored` ignored unless it is 0.
fn start_with(
    args: &[&str],
    limit: Option<(libc::__rlimit_resource_t, u64)>,
    ignored: i32,
) -> Running {
    let mut command = command(args);
    let prepare = move || {
        if let Some((resource, most)) = limit {
            let limit = libc::rlimit {
                rlim_cur: most,
                rlim_max: libc::RLIM_INFINITY,
            };
            // SAFETY: the limit is initialized, and the call is allowed between fork and exec.
            if unsafe { libc::setrlimit(resource, &raw const limit) } != 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        if ignored != 0 {
            // SAFETY: no code is run for the signal.
            unsafe { libc::signal(ignored, libc::SIG_IGN) };
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only and allocates nothing.
    unsafe { command.pre_exec(prepare) };
    Running::spawn(&mut command)
}

/// Asserts that the run ended as one does whose duration is over.
fn assert_ended_in_order(ran: &Ran) {
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.summary()["guests"][0]["ok"], true);
}

#[test]
fn a_signal_that_asks_for_nothing_does_not_end_a_run() {
    let mut run = start(&[
        "run",
        "--summary",
        "json",
        "--cmdline",
        "workload=hog seconds=0",
    ]);
    let mut signals = vec![
        libc::SIGXFSZ,
        libc::SIGXCPU,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGALRM,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGPWR,
        libc::SIGSTKFLT,
        libc::SIGIO,
        libc::SIGTRAP,
        libc::SIGPIPE,
        libc::SIGCONT,
        libc::SIGURG,
        libc::SIGWINCH,
    ];
    signals.extend(libc::SIGRTMIN()..=libc::SIGRTMAX());
    signal_when_ready(&mut run, libc::SIGUSR1);
    for signal in signals {
        run.signal(signal);
    }
    run.signal(libc::SIGTERM);
    assert_ended_in_order(&run.finish());
}

#[test]
fn a_trace_beyond_the_limit_of_file_sizes_fails_and_the_guests_run_on() {
    let trace = path("limited.perfetto");
    let trace = trace.to_string_lossy();
    let args = [
        "run",
        "--summary",
        "json",
        "--trace",
        &trace,
        "--cpus",
        "2",
        "--host-cpus",
        "0",
        "--cmdline",
        "lock=ticket hints=on acquisitions=2000",
    ];
    let ran = start_with(&args, Some((libc::RLIMIT_FSIZE, 1000)), 0).finish();
    assert_ended_in_order(&ran);
    assert_eq!(
        ran.summary()["guests"][0]["workload"]["acquisitions"],
        4000,
        "{ran:?}"
    );
    let is_reported = ran
        .stderr
        .lines()
        .any(|line| line.contains("cannot write the trace to") && line.contains("File too large"));
    assert!(is_reported, "{ran:?}");
}

#[test]
fn a_disk_write_beyond_the_limit_of_file_sizes_is_an_io_error_of_its_guest() {
    let disk = file("limited.img", &[0; 1 << 20]);
    let kernel = file("limited.elf", guest_tests::GUEST_ELF);
    let steps = "do=device:0 do=start do=write:1024:512:0x43 do=write:0:512:0x44";
    let args = [
        "run",
        "--kernel",
        &kernel.to_string_lossy(),
        "--disk",
        &disk.to_string_lossy(),
        "--cmdline",
        &format!("workload=devices {steps}"),
    ];
    let ran = start_with(&args, Some((libc::RLIMIT_FSIZE, 1000)), 0).finish();
    assert_eq!(ran.code, 0, "{ran:?}");
    for line in [
        "write:1024:512:0x43: status 1",
        "write:0:512:0x44: status 0",
    ] {
        assert!(ran.stdout.lines().any(|l| l == line), "{line}: {ran:?}");
    }
}

#[test]
fn a_run_whose_sentences_nobody_reads_ends_as_it_would_otherwise() {
    let mut run = start(&["run", "--cmdline", "workload=nonsense"]);
    drop(run.stderr.take());
    let ran = run.finish();
    assert_eq!(ran.code, 2, "the guest's code, and no panic: {ran:?}");
}

#[test]
fn a_hang_up_ends_a_run_as_a_request_to_end_does() {
    for signal in [libc::SIGHUP, libc::SIGTERM, libc::SIGINT] {
        let trace = path(&format!("end-{signal}.perfetto"));
        let control = path(&format!("end-{signal}.sock"));
        let mut run = start(&[
            "run",
            "--summary",
            "json",
            "--trace",
            &trace.to_string_lossy(),
            "--control",
            &control.to_string_lossy(),
            "--cmdline",
            "workload=hog seconds=0",
        ]);
        run.until("the control socket exists", || control.exists());
        signal_when_ready(&mut run, signal);
        assert_ended_in_order(&run.finish());
        assert!(!control.exists(), "the control socket is left behind");
        assert_ne!(std::fs::metadata(&trace).expect("a trace").len(), 0);
    }
}

#[test]
fn a_hang_up_or_a_quit_that_the_user_wants_ignored_does_not_end_a_run() {
    let args = [
        "run",
        "--summary",
        "json",
        "--cmdline",
        "workload=idle seconds=1",
    ];
    for signal in [libc::SIGHUP, libc::SIGQUIT] {
        let mut run = start_with(&args, None, signal);
        signal_when_ready(&mut run, signal);
        let ran = run.finish();
        assert_ended_in_order(&ran);
        assert_eq!(ran.summary()["guests"][0]["end"], "done", "{ran:?}");
    }
}

#[test]
fn a_file_that_never_comes_does_not_keep_a_run_from_being_ended() {
    let pipe = pipe("never");
    let kernel = file("ends.elf", &common::elf(&[0xf4], 1 << 20, 1 << 20));
    let kernel = kernel.to_string_lossy();
    let vsock = path("ends.vsock");
    let socket = format!("cid=3,path={}", vsock.display());
    let disk = format!("{pipe},ro");
    let own = ["--kernel", &kernel, "--vsock", &socket];
    for hanging in [
        ["--kernel", &pipe],
        ["--initrd", &pipe],
        ["--disk", &disk],
        ["--trace", &pipe],
    ] {
        let mut args = vec!["run"];
        if hanging[0] != "--kernel" {
            args.extend(own);
        }
        args.extend(hanging);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            let mut run = start(&args);
            let pid = run.pid();
            run.until("it handles signals", || blocks_sigint(pid));
            run.signal(signal);
            let ran = run.finish();
            assert_eq!(
                ran.one_sentence(),
                "baton: ended by a signal before the guests ran"
            );
            assert_eq!(ran.stdout, "");
            assert!(!vsock.exists(), "a socket is left behind");
        }
    }
}

#[test]
fn files_without_an_end_are_refused() {
    let kernel = file("endless.elf", &common::elf(&[0xf4], 1 << 20, 1 << 20));
    let kernel = &*kernel.to_string_lossy();
    for (args, part) in [
        (vec!["run", "/dev/zero"], "longer than 8M"),
        (vec!["run", "--kernel", "/dev/zero"], "larger than 1G"),
        (
            vec!["run", "--kernel", kernel, "--initrd", "/dev/zero"],
            "give the guest more memory",
        ),
        (
            vec!["run", "--kernel", kernel, "--initrd", "/dev/null"],
            "is empty",
        ),
    ] {
        let ran = baton(&args);
        assert!(ran.one_sentence().contains(part), "{ran:?}");
    }
}

/// Asserts that a run with these flags and outputs is refused.
fn assert_refused(trace: &Path, metrics: &Path, flags: &[&str]) {
    let target = format!("file:{}", metrics.display());
    let trace = trace.to_string_lossy();
    let mut args = vec!["run", "--trace", &*trace, "--metrics", &*target];
    args.extend(flags);
    let ran = baton(&args);
    ran.one_sentence();
}

#[test]
fn a_run_that_is_refused_leaves_what_one_before_has_written() {
    let socket = path("taken.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    let socket = socket.to_string_lossy();
    let refusals: [&[&str]; 4] = [
        // Not admitted.
        &[
            "--cpus",
            "64",
            "--reservation",
            "9ms/10ms",
            "--host-cpus",
            "0",
        ],
        &["--kernel", "/nonexistent"],
        &["--host-cpus", "4000"],
        // Ready, but the last output that others could see is not available.
        &["--control", &socket],
    ];
    for flags in refusals {
        let trace = file("refused.perfetto", b"an old trace");
        let metrics = file("refused.prom", b"old metrics");
        assert_refused(&trace, &metrics, flags);
        assert_eq!(std::fs::read(&trace).expect("a file"), b"an old trace");

        std::fs::remove_file(&trace).expect("removed");
        assert_refused(&trace, &metrics, flags);
        assert!(!trace.exists(), "an empty trace is left behind");
    }
    let metrics = file("refused.prom", b"old metrics");
    assert_refused(&path("refused.perfetto"), &metrics, refusals[0]);
    assert_eq!(std::fs::read(&metrics).expect("a file"), b"old metrics");
}

#[test]
fn a_kernel_that_is_cut_short_is_refused_and_called_so() {
    let whole = common::elf(&[0xf4; 64], 1 << 20, 1 << 20);
    // Cut before the last byte, in the code, in the program header, and in the ELF header.
    for length in [whole.len() - 1, whole.len() - 32, 100, 40] {
        let kernel = file("cut.elf", &whole[..length]);
        let ran = baton(&["run", "--kernel", &kernel.to_string_lossy()]);
        let sentence = ran.one_sentence();
        assert!(sentence.contains("is cut short: it has"), "{sentence}");
    }
}
