//! Builds the bare-metal guest: its own program for no operating system, so `rustc` is called
//! directly. The host's target serves (its `core` is installed wherever this crate builds), without
//! start files and, because interrupts arrive on the running stack, without a red zone.

use std::env;
use std::path::Path;
use std::process::{Command, exit};

fn main() {
    println!("cargo::rerun-if-changed=guest");
    println!("cargo::rerun-if-changed=../vmm/abi/src");
    println!("cargo::rerun-if-changed=build.rs");
    let target = variable("TARGET");
    if !target.starts_with("x86_64-") || !target.contains("-linux-") {
        fail(&format!(
            "the guest is x86-64 and built with the host's Linux tools, not for {target}"
        ));
    }
    let elf = Path::new(&variable("OUT_DIR")).join("guest.elf");
    let script = Path::new(&variable("CARGO_MANIFEST_DIR")).join("guest/guest.ld");
    let status = Command::new(variable("RUSTC"))
        .args([
            "guest/main.rs",
            "--crate-name",
            "guest",
            "--crate-type",
            "bin",
        ])
        .args([
            "--edition",
            "2024",
            "--target",
            &target,
            "--deny",
            "warnings",
        ])
        .args([
            "-C",
            "opt-level=3",
            "-C",
            "panic=abort",
            "-C",
            "codegen-units=1",
        ])
        .args(["-C", "relocation-model=static", "-C", "no-redzone=yes"])
        .args([
            "-C",
            "force-unwind-tables=no",
            "-C",
            "debuginfo=line-tables-only",
        ])
        .args(
            ["nostartfiles", "nostdlib", "static", "no-pie"]
                .map(|arg| format!("-Clink-arg=-{arg}")),
        )
        .args(["--build-id=none", "-z,noexecstack"].map(|arg| format!("-Clink-arg=-Wl,{arg}")))
        .arg(format!("-Clink-arg=-Wl,-T,{}", script.display()))
        .arg("-o")
        .arg(&elf)
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(_) => fail("the guest does not compile, see above"),
        Err(error) => fail(&format!("cannot run rustc: {error}")),
    }
    println!("cargo::rustc-env=GUEST_ELF={}", elf.display());
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| fail(&format!("{name}: {error}")))
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    exit(1)
}
