//! Periodic timers of local APICs run on while their vCPUs sleep or wait. They must not interrupt the host too
//! often.

mod common;

use std::arch::global_asm;
use std::mem::offset_of;

use baton_abi::{hints as abi, testdev};
use baton_machine::apic_timer::{most, possible};
use baton_machine::kvm::shortest_timer_period;

use common::{Ran, baton, elf, file};

/// Offset of the time in a hint page until which its vCPU is idle.
const IDLE_UNTIL: usize =
    offset_of!(abi::HintPage, guest) + offset_of!(abi::GuestHints, idle_until_tsc);

// Four guests, each of which starts a periodic timer of 1 us. The first halts until the timer ticks, the second
// spins, and the third rings again and again that it is idle for a million ticks of the TSC, until they find
// that the count of the timer was changed. They end with 0 if the new count is the expected one, with 8 if it is
// not, and with 9 if the count never changes. The fourth halts for ever, in xAPIC mode.
global_asm!(
    ".pushsection .rodata.baton_timer_guest, \"a\"",
    ".globl baton_timer_halts",
    "baton_timer_halts:",
    "mov esp, 0x113000",
    // The interrupt gate.
    "lea rax, [rip + 4f]",
    "mov edi, 0x111400",
    "mov [rdi], ax",
    "mov word ptr [rdi + 2], 0x10",
    "mov word ptr [rdi + 4], 0x8e00",
    "shr eax, 16",
    "mov [rdi + 6], ax",
    "mov dword ptr [rdi + 8], 0",
    "lidt [rip + 7f]",
    "mov r8d, 0x20040", // periodic, vector 0x40
    "mov r9d, 909091",
    "mov ebp, 100000",
    "lea rbx, [rip + 3f]",
    "jmp 2f",
    ".globl baton_timer_spins",
    "baton_timer_spins:",
    "mov r8d, 0x30040", // masked, too
    "mov r9d, 100000000",
    "mov ebp, 3000000",
    "lea rbx, [rip + 5f]",
    "jmp 2f",
    ".globl baton_timer_idles",
    "baton_timer_idles:",
    "mov eax, 0x114",
    "mov edx, {hint_page}",
    "out dx, eax",
    "mov r8d, 0x30040",
    "mov r9d, 100000000",
    "mov ebp, 100000",
    "lea rbx, [rip + 10f]",
    "2:",
    "mov ecx, 0x1b", // IA32_APIC_BASE: x2APIC
    "rdmsr",
    "or eax, 0xc00",
    "wrmsr",
    "xor edx, edx",
    "mov ecx, 0x80f",
    "mov eax, 0x1ff",
    "wrmsr",
    "mov ecx, 0x832",
    "mov eax, r8d",
    "wrmsr",
    "mov ecx, 0x83e",
    "mov eax, 0xb", // counts every tick, 1 ns
    "wrmsr",
    "mov ecx, 0x838",
    "mov eax, 1000",
    "wrmsr",
    "jmp rbx",
    "3:",
    "sti",
    "hlt",
    "4:",
    "mov esp, 0x113000", // it does not return
    "mov ecx, 0x80b",
    "xor eax, eax",
    "xor edx, edx",
    "wrmsr",
    "jmp 5f",
    "10:",
    "rdtsc",
    "shl rdx, 32",
    "lea rax, [rax + rdx + 1000000]",
    "mov edi, 0x114000 + {idle_until}",
    "mov [rdi], rax",
    "mov eax, {idle}",
    "mov edx, {doorbell}",
    "out dx, eax",
    "5:",
    "mov ecx, 0x838",
    "rdmsr",
    "cmp eax, 1000",
    "jne 6f",
    "dec ebp",
    "jz 8f",
    "jmp rbx",
    "6:",
    "sub eax, r9d",
    "jz 9f",
    "mov eax, 8",
    "jmp 9f",
    "8:",
    "mov eax, 9",
    "9:",
    "mov edx, {exit}",
    "out dx, eax",
    "7:",
    ".word 0xfff",
    ".quad 0x111000",
    ".globl baton_timer_xapic",
    "baton_timer_xapic:",
    "mov ebx, 0xfee00000",
    "mov dword ptr [rbx + 0x320], 0x30040",
    "mov dword ptr [rbx + 0x3e0], 0xb",
    "mov dword ptr [rbx + 0x380], 1000",
    "hlt",
    ".globl baton_timer_end",
    "baton_timer_end:",
    ".popsection",
    exit = const testdev::PORT_EXIT,
    hint_page = const abi::PORT_HINT_PAGE,
    doorbell = const abi::PORT_DOORBELL,
    idle = const abi::DOORBELL_IDLE,
    idle_until = const IDLE_UNTIL,
);

unsafe extern "C" {
    static baton_timer_halts: u8;
    static baton_timer_spins: u8;
    static baton_timer_idles: u8;
    static baton_timer_xapic: u8;
    static baton_timer_end: u8;
}

const CODE: u64 = 0x10_0000;

/// A kernel that starts at `entry`.
fn kernel(name: &str, entry: *const u8) -> String {
    let (from, to) = (&raw const baton_timer_halts, &raw const baton_timer_end);
    // SAFETY: the assembly above, from its first label to its last.
    let code = unsafe { std::slice::from_raw_parts(from, to as usize - from as usize) };
    let entry = CODE + (entry as u64 - from as u64);
    let path = file(name, &elf(code, CODE, entry));
    path.to_string_lossy().into_owned()
}

/// Whether this host's KVM permits timers beyond the limit.
fn there_is_something_to_limit() -> bool {
    possible(1, shortest_timer_period()) > u64::from(most(1))
}

fn run(kernel: &str, flags: &[&str]) -> Ran {
    let mut words = vec![
        "run",
        "--kernel",
        kernel,
        "--memory",
        "16M",
        "--control",
        "off",
    ];
    words.extend(flags);
    // This ends a guest that halts for ever, so that the test fails.
    words.extend(["--duration", "60s"]);
    baton(&words)
}

#[test]
fn the_timer_of_a_vcpu_that_halts_or_is_idle_is_slowed_down_and_the_guest_is_told_once() {
    if !there_is_something_to_limit() {
        return;
    }
    for (name, entry) in [
        ("timer-halts.elf", &raw const baton_timer_halts),
        ("timer-idles.elf", &raw const baton_timer_idles),
    ] {
        let kernel = kernel(name, entry);
        for threads in ["on", "off"] {
            let ran = run(&kernel, &["--vcpu-threads", threads]);
            assert_eq!(ran.code, 0, "{ran:?}");
            let told = ran.stdout.matches("it is slowed down to ").count();
            assert_eq!(told, 1, "{ran:?}");
        }
    }
}

#[test]
fn the_timer_of_a_vcpu_that_is_preempted_is_slowed_down() {
    if !there_is_something_to_limit() {
        return;
    }
    let kernel = kernel("timer-spins.elf", &raw const baton_timer_spins);
    // Beside a vCPU that runs for its whole slices.
    let text = format!(
        "until_guest = \"spins\"\n\
         [[guest]]\nname = \"spins\"\nkernel = {kernel:?}\nmemory = \"16M\"\n\
         [[guest]]\nname = \"hog\"\ncmdline = \"workload=hog seconds=600\"\n"
    );
    let config = file("timer-spins.toml", text.as_bytes());
    for threads in ["on", "off"] {
        let ran = baton(&[
            "run",
            &config.to_string_lossy(),
            "--host-cpus",
            &common::first_cpu(),
            "--vcpu-threads",
            threads,
            "--control",
            "off",
        ]);
        assert_eq!(ran.code, 0, "{ran:?}");
    }
}

#[test]
fn a_guest_whose_timer_cannot_be_slowed_down_is_ended_and_told_why() {
    if !there_is_something_to_limit() {
        return;
    }
    let kernel = kernel("timer-xapic.elf", &raw const baton_timer_xapic);
    for threads in ["on", "off"] {
        let ran = run(&kernel, &["--vcpu-threads", threads]);
        assert_eq!(ran.code, common::GUESTS_FAILED, "{ran:?}");
        assert!(ran.stdout.contains("let the guest use x2APIC"), "{ran:?}");
    }
}
