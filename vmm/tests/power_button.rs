//! At the end of a run guests are requested by their ACPI power buttons to switch themselves off.

mod common;

use std::io::{BufRead, BufReader};
use std::process::ChildStderr;

use baton_config::{GuestConfig, KernelSource};
use baton_machine::{Exit, Guest, GuestEnd, Vcpu, kvm};
use kvm_bindings::{KVM_IRQCHIP_IOAPIC, kvm_irqchip};
use serde_json::Value;

use common::{Running, elf, file, start};

/// Enables the power button, and prints `ready`.
const ENABLE: &[u8] = &[
    0x66, 0xba, 0x02, 0x06, // mov dx, 0x602 (PM1 enable)
    0x66, 0xb8, 0x00, 0x01, // mov ax, 0x100 (power button)
    0x66, 0xef, // out dx, ax
    0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xb0, b'r', 0xee, // mov al, 'r'; out dx, al
    0xb0, b'e', 0xee, //
    0xb0, b'a', 0xee, //
    0xb0, b'd', 0xee, //
    0xb0, b'y', 0xee, //
    0xb0, b'\n', 0xee, //
];
/// Waits for a press of the button, and acknowledges it.
const AWAIT: &[u8] = &[
    0x66, 0xba, 0x00, 0x06, // mov dx, 0x600 (PM1 status)
    0x66, 0xed, // again: in ax, dx
    0xf6, 0xc4, 0x01, // test ah, 1
    0x74, 0xf9, // jz again
    0x66, 0xb8, 0x00, 0x01, // mov ax, 0x100
    0x66, 0xef, // out dx, ax
];
/// Switches the machine off.
const SWITCH_OFF: &[u8] = &[
    0x66, 0xba, 0x04, 0x06, // mov dx, 0x604 (PM1 control)
    0x66, 0xb8, 0x00, 0x34, // mov ax, 0x3400 (S5, enabled)
    0x66, 0xef, // out dx, ax
];
/// Spins for ever.
const SPIN: &[u8] = &[0xeb, 0xfe];

const PIN_OF_SCI: u32 = 1 << 9;

/// A kernel that switches itself off when its button is pressed.
fn obedient() -> String {
    kernel("obedient.elf", &[ENABLE, AWAIT, SWITCH_OFF].concat())
}

/// A kernel that enables its button and takes no notice of it.
fn stubborn() -> String {
    kernel("stubborn.elf", &[ENABLE, SPIN].concat())
}

fn kernel(name: &str, code: &[u8]) -> String {
    // Of this process, because tests that run at the same time write files of the same names.
    let name = format!("{:?}-{name}", std::thread::current().id());
    let path = file(&name, &elf(code, 1 << 20, 1 << 20));
    path.to_string_lossy().into_owned()
}

/// A run of one guest, and its standard error, where the guest has printed that its button is enabled.
fn ready_run(kernel: &str, flags: &[&str]) -> (Running, BufReader<ChildStderr>) {
    let mut words = vec!["run", "--kernel", kernel, "--summary", "json"];
    words.extend(flags);
    let mut run = start(&words);
    let mut output = BufReader::new(run.stderr.take().expect("a pipe"));
    read_until(&mut output, "ready");
    (run, output)
}

/// Reads lines until one has `text`.
fn read_until(output: &mut impl BufRead, text: &str) {
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert_ne!(output.read_line(&mut line).expect("text"), 0, "no {text}");
    }
}

/// The end of the run's only guest. The run succeeds.
fn end_of(run: Running) -> Value {
    let ran = run.finish();
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.summary()["guests"][0].clone()
}

/// Whether KVM has ACPI's interrupt asserted at the I/O APIC.
fn sci_is_asserted(guest: &Guest) -> bool {
    let mut chip = kvm_irqchip {
        chip_id: KVM_IRQCHIP_IOAPIC,
        ..Default::default()
    };
    guest.vm().get_irqchip(&mut chip).expect("the I/O APIC");
    // SAFETY: KVM has filled in the I/O APIC's part.
    let irr = unsafe { chip.chip.ioapic.irr };
    irr & PIN_OF_SCI != 0
}

/// Runs `vcpu` until `is_so`. Panics if the guest ends before.
fn run_until(vcpu: &mut Vcpu, mut is_so: impl FnMut(&Guest) -> bool) {
    while !is_so(&vcpu.guest) {
        assert!(matches!(vcpu.run(), Exit::Handled | Exit::Interrupted));
    }
}

#[test]
fn a_press_asserts_acpis_interrupt_until_the_guest_acknowledges_it() {
    let kvm = kvm::open().expect("KVM");
    let config = GuestConfig {
        kernel: KernelSource::Path(obedient().into()),
        ..GuestConfig::new("obedient")
    };
    let (guest, mut vcpus) = Guest::create(&kvm, 0, &config).expect("a guest");
    let vcpu = &mut *vcpus[0];
    assert!(!guest.press_power_button(), "no driver has enabled it");
    assert!(!sci_is_asserted(&guest));
    run_until(vcpu, Guest::press_power_button);
    assert!(sci_is_asserted(&guest));
    run_until(vcpu, |guest| !sci_is_asserted(guest));
    while vcpu.run() != Exit::Ended {}
    assert_eq!(guest.ended(), Some(GuestEnd::PoweredOff));
    assert!(!guest.press_power_button(), "it has ended");
}

#[test]
fn a_request_to_end_lets_guests_with_a_button_switch_themselves_off() {
    let kernel = obedient();
    for sched in ["baton", "host"] {
        for signal in [libc::SIGINT, libc::SIGTERM] {
            let (run, _output) = ready_run(&kernel, &["--sched", sched]);
            run.signal(signal);
            let guest = end_of(run);
            assert_eq!(guest["end"], "powered off by request");
            assert_eq!(guest["exit_code"], 0);
        }
    }
}

#[test]
fn the_end_of_the_duration_is_such_a_request() {
    let (run, _output) = ready_run(&obedient(), &["--duration", "3s"]);
    assert_eq!(end_of(run)["end"], "powered off by request");
}

#[test]
fn a_guest_that_does_not_switch_itself_off_is_cut_after_the_timeout() {
    let (run, _output) = ready_run(&stubborn(), &["--shutdown-timeout", "100ms"]);
    run.signal(libc::SIGTERM);
    let guest = end_of(run);
    let end = guest["end"].as_str().expect("an end");
    assert!(end.starts_with("cut after the timeout"), "{end}");
    assert_eq!(guest["exit_code"], Value::Null);
}

#[test]
fn a_timeout_of_zero_cuts_at_once() {
    let (run, _output) = ready_run(&obedient(), &["--shutdown-timeout", "0"]);
    run.signal(libc::SIGINT);
    assert_eq!(end_of(run)["end"], "stopped when the run ended");
}

#[test]
fn a_second_request_cuts_at_once() {
    let (run, mut output) = ready_run(&stubborn(), &["--shutdown-timeout", "60m"]);
    run.signal(libc::SIGINT);
    read_until(&mut output, "waiting up to");
    run.signal(libc::SIGINT);
    assert_eq!(end_of(run)["end"], "stopped when the run ended");
}

#[test]
fn guests_without_a_button_are_not_waited_for() {
    let text = format!(
        "[[guest]]\nname = \"linux\"\nkernel = \"{}\"\n\
         [[guest]]\nname = \"bare\"\ncmdline = \"workload=hog seconds=0\"\n",
        obedient()
    );
    let config = file("power-button.toml", text.as_bytes());
    let config = config.to_string_lossy();
    // Longer than any test may run.
    let patience = ["--shutdown-timeout", "60m"];
    let mut words = vec!["run", &*config, "--summary", "json"];
    words.extend(patience);
    let mut run = start(&words);
    let mut output = BufReader::new(run.stderr.take().expect("a pipe"));
    read_until(&mut output, "ready");
    run.signal(libc::SIGTERM);
    let ran = run.finish();
    let guests = &ran.summary()["guests"];
    assert_eq!(guests[0]["end"], "powered off by request", "{ran:?}");
    assert_eq!(guests[1]["end"], "stopped when the run ended", "{ran:?}");
}
