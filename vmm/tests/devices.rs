//! Virtio devices in whole runs: the test guest drives them by the steps on its command line.

mod common;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{Ran, baton, file};

/// A disk of 1 MiB whose sectors are full of their numbers.
fn disk(name: &str) -> PathBuf {
    let bytes: Vec<u8> = (0..2048u32).flat_map(|n| [n as u8; 512]).collect();
    file(name, &bytes)
}

/// Runs the guest with these flags and steps.
fn run(name: &str, flags: &[&str], steps: &str) -> Ran {
    let kernel = file(&format!("{name}.elf"), guest_tests::GUEST_ELF);
    let steps = steps
        .split_ascii_whitespace()
        .map(|step| format!(" do={step}"));
    let cmdline = format!("workload=devices{}", steps.collect::<String>());
    let kernel = kernel.to_string_lossy();
    let mut args = vec!["run", "--kernel", &kernel, "--cmdline", &cmdline];
    args.extend(flags);
    baton(&args)
}

/// The lines that the guest prints about the steps of one disk.
fn of_disk(name: &str, disk: &str, steps: &str) -> Vec<String> {
    let ran = run(name, &["--disk", disk], &format!("device:0 {steps}"));
    assert_eq!(ran.code, 0, "{ran:?}");
    // The first line has the kind of the device.
    printed(&ran).skip(1).map(str::to_owned).collect()
}

fn printed(ran: &Ran) -> impl Iterator<Item = &str> {
    ran.stdout.lines().take_while(|line| line.contains(": "))
}

fn byte_of(path: &Path, at: usize) -> u8 {
    std::fs::read(path).expect("the disk")[at]
}

#[test]
fn a_disk_is_read_written_and_flushed() {
    let path = disk("devices-rw.img");
    let steps = "start read:3:1024 write:5:512:0x43 flush read:5:512 read:2048:512 read:0:100";
    let printed = of_disk("devices-rw", &path.to_string_lossy(), steps);
    assert_eq!(
        printed[1..],
        [
            "read:3:1024: status 0 written 1025 first 0x3 last 0x4",
            "write:5:512:0x43: status 0",
            "flush: status 0",
            "read:5:512: status 0 written 513 first 0x43 last 0x43",
            "read:2048:512: status 1 written 0 first 0xa5 last 0xa5",
            "read:0:100: status 1 written 0 first 0xa5 last 0xa5",
        ]
    );
    assert_eq!(
        (byte_of(&path, 5 * 512), byte_of(&path, 6 * 512)),
        (0x43, 6)
    );
}

#[test]
fn a_driver_that_accepts_no_feature_reads_and_writes_and_does_not_discard() {
    let path = disk("devices-plain.img");
    let steps = "start:0 write:1:512:0x43 read:1:512 discard:8:8:1";
    let printed = of_disk("devices-plain", &path.to_string_lossy(), steps);
    assert_eq!(
        printed[1..],
        [
            "write:1:512:0x43: status 0",
            "read:1:512: status 0 written 513 first 0x43 last 0x43",
            "discard:8:8:1: status 2",
        ]
    );
    assert_eq!(byte_of(&path, 8 * 512), 8);
}

#[test]
fn a_queue_can_be_taken_back_and_given_anew() {
    let path = disk("devices-queue.img");
    let steps = "start read:1:512 restart-queue read:2:512 restart-queue read:3:512";
    let printed = of_disk("devices-queue", &path.to_string_lossy(), steps);
    let reads = ["0x1", "0x2", "0x3"].map(|value| {
        let sector = &value[2..];
        format!("read:{sector}:512: status 0 written 513 first {value} last {value}")
    });
    let restart = "restart-queue: ready true".to_owned();
    assert_eq!(
        printed[1..],
        [
            reads[0].clone(),
            restart.clone(),
            reads[1].clone(),
            restart,
            reads[2].clone()
        ]
    );
}

/// At a reset, the thread of the device may be in any state; the unit tests of the queues check each of them.
#[test]
fn memory_of_a_read_under_way_is_the_drivers_when_a_reset_is_complete() {
    let path = file("devices-reset.img", &[7; 8 << 20]);
    let printed = of_disk("devices-reset", &path.to_string_lossy(), "reset-at-work:50");
    assert_eq!(printed, ["reset-at-work:50: touched 0 times"]);
}

#[test]
fn a_discard_with_more_segments_than_there_may_be_is_refused() {
    let path = disk("devices-discard.img");
    let steps = "start discard:8:8:1 discard:24:8:2";
    let printed = of_disk("devices-discard", &path.to_string_lossy(), steps);
    assert_eq!(printed[2], "discard:24:8:2: status 2");
    assert_eq!(byte_of(&path, 24 * 512), 24);
    // If the file system of the test has holes.
    if printed[1] != "discard:8:8:1: status 2" {
        assert_eq!(printed[1], "discard:8:8:1: status 0");
        assert_eq!((byte_of(&path, 8 * 512), byte_of(&path, 16 * 512)), (0, 16));
    }
}

#[test]
fn two_disks_have_two_serials_and_the_users_is_taken() {
    let (one, two) = (disk("devices-one.img"), disk("devices-two.img"));
    let named = format!("{},serial=root-1,ro", one.display());
    let (one, two) = (one.to_string_lossy(), two.to_string_lossy());
    let steps = "device:0 start serial device:1 start serial";
    let ran = run("devices-two", &["--disk", &one, "--disk", &two], steps);
    let serials: Vec<_> = printed(&ran)
        .filter_map(|line| line.strip_prefix("serial: status 0 "))
        .collect();
    assert_eq!(serials.len(), 2, "{ran:?}");
    assert_ne!(serials[0], serials[1]);
    let printed = of_disk("devices-named", &named, "start serial");
    assert_eq!(printed[1], "serial: status 0 \"root-1\"");
}

#[test]
fn devices_of_a_guest_that_would_look_like_one_are_refused() {
    let disk = disk("devices-same.img");
    let disk = format!("{},ro,serial=a", disk.display());
    let mac = "tap=none,mac=52:54:00:12:34:56";
    for flags in [
        ["--disk", &disk, "--disk", &disk],
        ["--net", mac, "--net", mac],
    ] {
        let ran = run("devices-same", &flags, "");
        assert!(ran.one_sentence().contains("give each its own"), "{ran:?}");
    }
}

/// Locks bytes of the file as QEMU does for a guest that may write to it.
fn lock_as_qemu(file: &File) {
    for byte in [100, 101, 201, 203] {
        // SAFETY: integers only, for which all zeroes is a value.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = libc::F_RDLCK as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        lock.l_start = byte;
        lock.l_len = 1;
        // SAFETY: the file is open, and the lock lives through the call.
        let locked = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
        assert_eq!(locked, 0, "{}", io::Error::last_os_error());
    }
}

#[test]
fn an_image_that_qemu_writes_is_not_taken() {
    let path = disk("devices-qemu.img");
    let name = path.to_string_lossy();
    let read_only = format!("{name},ro");
    let qemu = File::open(&path).expect("the disk");
    lock_as_qemu(&qemu);
    for disk in [&*name, &read_only] {
        let ran = run("devices-qemu", &["--disk", disk], "device:0");
        assert!(
            ran.one_sentence()
                .contains("is in use by another guest or program")
        );
    }
    drop(qemu);
    of_disk("devices-qemu", &name, "start");
}

#[test]
fn what_is_no_disk_is_refused_and_a_pipe_is_not_waited_for() {
    let pipe = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("devices.pipe");
    let _ = std::fs::remove_file(&pipe);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .expect("a pipe");
    for path in [&*pipe, Path::new("/dev/null"), Path::new("/")] {
        for options in ["", ",ro"] {
            let disk = format!("{}{options}", path.display());
            let ran = run("devices-none", &["--disk", &disk], "device:0");
            let sentence = ran.one_sentence();
            assert!(
                sentence.contains("neither a regular file nor a block device"),
                "{sentence}"
            );
        }
    }
}

#[test]
fn the_end_of_an_image_that_is_no_whole_sector_is_said_not_to_be_there() {
    let path = file("devices-odd.img", &[1; 1000]);
    let disk = path.to_string_lossy();
    let ran = run(
        "devices-odd",
        &["--disk", &disk],
        "device:0 start read:1:512",
    );
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("the last 488 bytes of disk"), "{ran:?}");
    assert!(ran.stdout.contains("read:1:512: status 1 "), "{ran:?}");
}

#[test]
fn a_ram_disk_comes_from_a_pipe_as_from_a_file() {
    let bytes: Vec<u8> = (0..300_000u32).map(|at| at as u8).collect();
    let sum: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
    let expected = format!("ram-disk: {} bytes, sum {sum}", bytes.len());
    let initrd = file("devices.initrd", &bytes);
    let from_file = run(
        "devices-initrd",
        &["--initrd", &initrd.to_string_lossy()],
        "ram-disk",
    );
    assert!(
        printed(&from_file).any(|line| line == expected),
        "{from_file:?}"
    );

    let (reader, mut writer) = io::pipe().expect("a pipe");
    let kernel = file("devices-pipe.elf", guest_tests::GUEST_ELF);
    let kernel = kernel.to_string_lossy();
    let cmdline = "workload=devices do=ram-disk";
    let args = [
        "run",
        "--kernel",
        &kernel,
        "--initrd",
        "/dev/stdin",
        "--cmdline",
        cmdline,
    ];
    let run = common::Running::spawn(common::command(&args).stdin(reader));
    io::Write::write_all(&mut writer, &bytes).expect("baton reads");
    drop(writer);
    let ran = run.finish();
    assert!(printed(&ran).any(|line| line == expected), "{ran:?}");
}

#[test]
fn a_ram_disk_without_end_is_read_no_further_than_it_fits_and_refused() {
    let ran = run("devices-endless", &["--initrd", "/dev/zero"], "ram-disk");
    assert!(
        ran.one_sentence().contains("give the guest more memory"),
        "{ran:?}"
    );
}

#[test]
fn a_ram_disk_without_a_byte_is_refused() {
    let empty = file("devices-empty.initrd", b"");
    for path in [&*empty, Path::new("/dev/null")] {
        let ran = run(
            "devices-empty",
            &["--initrd", &path.to_string_lossy()],
            "ram-disk",
        );
        assert!(ran.one_sentence().contains("is empty"), "{ran:?}");
    }
}

/// A block device on a file, detached when dropped.
struct LoopDevice(String);

impl LoopDevice {
    /// `None` if this user or this host has no loop devices.
    fn on(path: &Path) -> Option<Self> {
        let made = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(path)
            .output();
        match made {
            Ok(Output { status, stdout, .. }) if status.success() => {
                let name = String::from_utf8(stdout).expect("a path");
                Some(Self(name.trim().to_owned()))
            }
            _ => {
                eprintln!("not tested: loop devices need root and losetup");
                None
            }
        }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn a_block_device_that_the_host_has_claimed_is_not_written() {
    let Some(device) = LoopDevice::on(&disk("devices-claimed.img")) else {
        return;
    };
    // As a mounted file system does.
    let lock = File::options()
        .read(true)
        .custom_flags(libc::O_EXCL)
        .open(&device.0)
        .expect("nobody else has it");
    let steps = "start write:1:512:0x43";
    let refused = run("devices-claimed", &["--disk", &device.0], "device:0");
    assert!(
        refused.one_sentence().contains("it is mounted"),
        "{refused:?}"
    );
    let read_only = format!("{},ro", device.0);
    assert_eq!(
        of_disk("devices-claimed", &read_only, steps)[1],
        "write:1:512:0x43: status 1"
    );
    drop(lock);
    let printed = of_disk("devices-claimed", &device.0, &format!("{steps} serial"));
    assert_eq!(printed[1], "write:1:512:0x43: status 0");
    assert!(
        printed[2].starts_with("serial: status 0 \"blk-7"),
        "{printed:?}"
    );
}

#[test]
fn a_ram_disk_comes_from_a_block_device() {
    let path = disk("devices-loop.initrd");
    let sum: u64 = std::fs::read(&path)
        .expect("the disk")
        .iter()
        .map(|byte| u64::from(*byte))
        .sum();
    let Some(device) = LoopDevice::on(&path) else {
        return;
    };
    let ran = run("devices-loop", &["--initrd", &device.0], "ram-disk");
    let expected = format!("ram-disk: {} bytes, sum {sum}", 1 << 20);
    assert!(printed(&ran).any(|line| line == expected), "{ran:?}");
}
