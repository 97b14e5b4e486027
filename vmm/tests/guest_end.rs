//! When a guest ends, the host gets back all that the guest had, while other guests of the run go on.

mod common;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use common::pvh::{OWNER, PHYS32_ENTRY, elf};
use common::{baton, file, number, start, sum, vcpus};

/// Longest wait for the end of a connection.
const PATIENCE: Duration = Duration::from_secs(60);
/// Memory of the guest that ends and of the guest that goes on, MiB. The process has no other mappings of
/// these lengths.
const SHORT: u64 = 211;
const LONG: u64 = 97;

/// What can be seen of a run below `/proc`.
struct Process(i32);

impl Process {
    fn proc(&self, file: &str) -> PathBuf {
        format!("/proc/{}/{file}", self.0).into()
    }

    /// The names of the threads of devices.
    fn devices(&self) -> Vec<String> {
        let tasks = fs::read_dir(self.proc("task")).expect("threads");
        tasks
            // A thread may end meanwhile.
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
            .filter(|name| name.starts_with("virtio"))
            .collect()
    }

    /// The number of open files of the process whose names contain `name`.
    fn files(&self, name: &str) -> usize {
        let files = fs::read_dir(self.proc("fd")).expect("files");
        files
            .filter_map(|file| fs::read_link(file.ok()?.path()).ok())
            .filter(|target| target.to_string_lossy().contains(name))
            .count()
    }

    /// Whether a third vCPU is mapped, which only the guest that ends has.
    fn maps_third_vcpu(&self) -> bool {
        let maps = fs::read_to_string(self.proc("maps")).expect("mappings");
        assert!(maps.contains("kvm-vcpu:1"), "{maps}");
        maps.contains("kvm-vcpu:2")
    }

    /// Resident memory of the process in MiB: now, and the largest so far.
    fn resident(&self) -> [u64; 2] {
        let status = fs::read_to_string(self.proc("status")).expect("a status");
        ["VmRSS:", "VmHWM:"].map(|key| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let kib = line.expect("a size").trim().strip_suffix(" kB");
            kib.expect("a unit").parse::<u64>().expect("a number") >> 10
        })
    }

    /// Whether the process has a mapping of this length.
    fn maps(&self, mib: u64) -> bool {
        let maps = fs::read_to_string(self.proc("maps")).expect("mappings");
        maps.lines().any(|line| {
            let (range, _) = line.split_once(' ').expect("a mapping");
            let (from, to) = range.split_once('-').expect("a range");
            let [from, to] = [from, to].map(|hex| u64::from_str_radix(hex, 16).expect("hex"));
            to - from == mib << 20
        })
    }
}

/// Whether no run has locked the disk.
fn is_free(disk: &Path) -> bool {
    File::open(disk).expect("the disk").try_lock().is_ok()
}

/// Runs two guests, the first of which keeps its devices busy and ends, and checks that all it had is free.
fn everything_goes_with_the_guest(name: &str, flags: &[&str]) {
    let kernel = file(&format!("end-{name}.elf"), guest_tests::GUEST_ELF);
    let disk = file(&format!("end-{name}.img"), b"");
    let image = File::options().write(true).open(&disk).expect("the disk");
    image.set_len(16 << 20).expect("a hole");
    drop(image);
    let socket = std::env::temp_dir().join(format!("baton-end-{}-{name}", std::process::id()));
    let _ = fs::remove_file(&socket);
    let config = file(
        &format!("end-{name}.toml"),
        format!(
            r#"
            [[guest]]
            name = "short"
            kernel = "{}"
            cmdline = "workload=device-hog hints=on seconds=1"
            cpus = 3
            memory = "{SHORT}M"
            disks = ["{}"]
            vsock = "cid=3,path={}"
            [[guest]]
            name = "long"
            cmdline = "workload=hog seconds=0"
            cpus = 2
            memory = "{LONG}M"
            "#,
            kernel.display(),
            disk.display(),
            socket.display()
        )
        .as_bytes(),
    );
    let config = config.to_string_lossy();
    let mut words = vec!["run", &*config, "--summary", "json"];
    words.extend(flags);
    let mut run = start(&words);
    let process = Process(run.pid());

    run.until("the socket exists", || socket.exists());
    let mut program = UnixStream::connect(&socket).expect("a listener");
    let mut output = BufReader::new(run.stderr.take().expect("a pipe"));
    let mut line = String::new();
    while !(line.starts_with("[short]") && line.contains("iterations")) {
        line.clear();
        assert_ne!(
            output.read_line(&mut line).expect("text"),
            0,
            "no last line"
        );
    }
    // The guest ends after this line. The checks below hold whether or not it has ended already.
    program.set_read_timeout(Some(PATIENCE)).expect("a time");
    match program.read(&mut [0]) {
        Ok(read) => assert_eq!(read, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    run.until("the socket is removed", || !socket.exists());
    run.until("the devices have no threads", || {
        process.devices().is_empty()
    });
    run.until("the disk is not locked", || is_free(&disk));
    run.until("its memory is not mapped", || !process.maps(SHORT));
    assert!(process.maps(LONG));
    // The file of the VM, and those of vCPUs, which mappings keep open, too.
    run.until("its VM is closed", || process.files("kvm-vm") == 1);
    run.until("its vCPUs are closed", || process.files("kvm-vcpu") == 2);
    run.until("its vCPUs are not mapped", || !process.maps_third_vcpu());

    // Another run can use the disk and the socket while the first goes on.
    let kernel = kernel.to_string_lossy();
    let vsock = format!("cid=3,path={}", socket.display());
    let disk = disk.to_string_lossy();
    let other = [
        "run",
        "--kernel",
        &kernel,
        "--cmdline",
        "workload=boot",
        "--disk",
        &disk,
        "--vsock",
        &vsock,
    ];
    assert_eq!(baton(&other).code, 0);
    run.assert_alive("the other run has ended");

    run.signal(libc::SIGINT);
    let summary = run.stdout.take().expect("a pipe");
    let summary: Value = serde_json::from_reader(summary).expect("a summary");
    let short = &summary["guests"][0];
    assert_eq!(short["exit_code"], 0, "{short}");
    assert!(number(&short["workload"], "iterations") > 0, "{short}");
    assert!(
        vcpus(short).all(|vcpu| vcpu["exits"]["port_out"].as_u64() > Some(0)),
        "{short}"
    );
    assert!(sum(short, "ran_ns") > 0, "{short}");
}

#[test]
fn all_that_a_guest_has_of_the_host_goes_when_it_ends() {
    everything_goes_with_the_guest("baton", &["--sched", "baton"]);
}

#[test]
fn it_goes_also_where_each_vcpu_has_a_thread() {
    everything_goes_with_the_guest("threads", &["--sched", "baton", "--vcpu-threads", "on"]);
}

#[test]
fn it_goes_also_under_the_hosts_scheduler() {
    everything_goes_with_the_guest("host", &["--sched", "host"]);
}

#[test]
fn the_host_gets_back_the_memory_that_an_ended_guest_has_touched() {
    const FIRST: u32 = 16;
    const LAST: u32 = 208;
    let [from, to] = [FIRST, LAST].map(|mib| (mib << 20).to_le_bytes());
    let page = 4096u32.to_le_bytes();
    let code = [
        &[0xbf][..],
        &from,         // mov edi, from
        &[0x89, 0x07], // again: mov [edi], eax
        &[0x81, 0xc7],
        &page, // add edi, 4096
        &[0x81, 0xff],
        &to,           // cmp edi, to
        &[0x72, 0xf0], // jb again
        &[0x0f, 0x0b], // ud2, for which there is no handler
    ]
    .concat();
    let kernel = file("end-memory.elf", &elf(&code, OWNER, PHYS32_ENTRY));
    let guests = format!(
        "[[guest]]\nkernel = \"{}\"\nmemory = \"{SHORT}M\"\n\
         [[guest]]\ncmdline = \"workload=hog seconds=0\"\n",
        kernel.display()
    );
    let config = file("end-memory.toml", guests.as_bytes());
    let mut run = start(&["run", &config.to_string_lossy()]);
    let process = Process(run.pid());
    run.until("the memory of the guest is free", || {
        let [now, most] = process.resident();
        most - now >= u64::from(LAST - FIRST)
    });
}
