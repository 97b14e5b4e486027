//! What a guest has of the host is the host's again when that guest ends, while others of the run go on.

mod common;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use common::pvh::{OWNER, PHYS32_ENTRY, elf};
use common::{baton, command, file, number, sum, vcpus};

/// When the test fails.
const PATIENCE: Duration = Duration::from_secs(60);
/// Memory of the guest that ends, and of the one that goes on, MiB. Nothing else of the process has
/// mappings of these lengths.
const SHORT: u64 = 211;
const LONG: u64 = 97;

/// A run that is killed when dropped.
struct Running(Child);

impl Running {
    /// Waits until `holds`. `what` says that it does not.
    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(
                self.0.try_wait().expect("a child").is_none(),
                "the run is over"
            );
            assert!(Instant::now() < end, "{what}");
            thread::yield_now();
        }
    }

    fn proc(&self, file: &str) -> PathBuf {
        format!("/proc/{}/{file}", self.0.id()).into()
    }

    /// Names of the devices' threads.
    fn devices(&self) -> Vec<String> {
        let tasks = fs::read_dir(self.proc("task")).expect("threads");
        tasks
            // One may end meanwhile.
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
            .filter(|name| name.starts_with("virtio"))
            .collect()
    }

    /// How many files of the process are called this.
    fn files(&self, name: &str) -> usize {
        let files = fs::read_dir(self.proc("fd")).expect("files");
        files
            .filter_map(|file| fs::read_link(file.ok()?.path()).ok())
            .filter(|target| target.to_string_lossy().contains(name))
            .count()
    }

    /// Whether a vCPU that only the guest that ends has is mapped.
    fn maps_third_vcpu(&self) -> bool {
        let maps = fs::read_to_string(self.proc("maps")).expect("mappings");
        assert!(maps.contains("kvm-vcpu:1"), "{maps}");
        maps.contains("kvm-vcpu:2")
    }

    /// Memory of the process, MiB: now, and at most so far.
    fn resident(&self) -> [u64; 2] {
        let status = fs::read_to_string(self.proc("status")).expect("a status");
        ["VmRSS:", "VmHWM:"].map(|key| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let kib = line.expect("a size").trim().strip_suffix(" kB");
            kib.expect("a unit").parse::<u64>().expect("a number") >> 10
        })
    }

    /// Whether there is a mapping of so many MiB.
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

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_free(disk: &Path) -> bool {
    File::open(disk).expect("the disk").try_lock().is_ok()
}

/// Two guests, of which the first keeps its devices busy and ends; then what it had is looked for.
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
    let mut run = Running(command(&words).spawn().expect("baton starts"));

    run.until("nobody listens", |_| socket.exists());
    let mut program = UnixStream::connect(&socket).expect("it listens");
    let mut output = BufReader::new(run.0.stderr.take().expect("a pipe"));
    let mut line = String::new();
    while !(line.starts_with("[short]") && line.contains("iterations")) {
        line.clear();
        assert_ne!(
            output.read_line(&mut line).expect("text"),
            0,
            "no last line"
        );
    }
    // It ends with this line. What follows is the same whether or not it has ended yet.
    program.set_read_timeout(Some(PATIENCE)).expect("a time");
    match program.read(&mut [0]) {
        Ok(read) => assert_eq!(read, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    run.until("the socket is there", |_| !socket.exists());
    run.until("its devices have threads", |run| run.devices().is_empty());
    run.until("the disk is locked", |_| is_free(&disk));
    run.until("its memory is mapped", |run| !run.maps(SHORT));
    assert!(run.maps(LONG));
    // The VM's file, and those of vCPUs, which mappings keep too.
    run.until("its VM is there", |run| run.files("kvm-vm") == 1);
    run.until("its vCPUs are there", |run| run.files("kvm-vcpu") == 2);
    run.until("its vCPUs are mapped", |run| !run.maps_third_vcpu());

    // Another run has disk and socket, while the first goes on.
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
    assert!(run.0.try_wait().expect("a child").is_none());

    // SAFETY: no memory is involved, and the child is not yet waited for, so the id is its own.
    assert_eq!(unsafe { libc::kill(run.0.id() as i32, libc::SIGINT) }, 0);
    let summary = run.0.stdout.take().expect("a pipe");
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
    let mut run = Running(
        command(&["run", &config.to_string_lossy()])
            .spawn()
            .expect("baton starts"),
    );
    run.until("the memory is the guest's", |run| {
        let [now, most] = run.resident();
        most - now >= u64::from(LAST - FIRST)
    });
}
