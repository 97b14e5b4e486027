//! What runs at CPL 0 before the first Rust code: the boot entry, the trampoline of the other vCPUs, and
//! the switch to CPL 3; and the page tables.
//!
//! It is short because CPL 0 may be emulated (about half a microsecond per instruction, a limited set
//! of instructions, no SSE). The page tables are data for the same reason.

use core::arch::global_asm;

use crate::cpu::{Cpu, RING0_TOP, RING3_TOP};
use crate::layout::{LOCAL_APIC, TRAMPOLINE, VIRTIO_MMIO};
use crate::preempt_count;

// Segments. The selectors of CPL 3 (0x33, 0x2b) are those of Linux: KVM-PVM returns to the guest
// with a native IRETQ, which reloads them against the host's GDT.
global_asm!(
    r#"
    .pushsection .text.boot, "ax", @progbits
    .code64
    .globl guest_start
guest_start:
    cli
    cld
    mov [rip + {boot_params}], rsi
    mov eax, offset guest_pml4
    mov cr3, rax
    mov eax, 0x620              # PAE | OSFXSR | OSXMMEXCPT
    mov cr4, rax
    mov eax, 0x80050033         # PG | AM | WP | NE | ET | MP | PE
    mov cr0, rax
    mov ecx, 0xc0000080         # EFER: SCE and NXE as under any 64-bit kernel
    rdmsr
    or eax, 0x801
    wrmsr
    mov edi, offset {cpus}
    mov esi, offset {boot_main}
    # fall through

    # Loads this vCPU's tables and switches to CPL 3. rdi: its block, rsi: where it continues.
enter_cpl3:
    mov rax, 0x00af9b000000ffff # 0x08: code64, DPL 0
    mov [rdi + {gdt} + 0x08], rax
    mov rax, 0x00cf93000000ffff # 0x10: data, DPL 0
    mov [rdi + {gdt} + 0x10], rax
    mov rax, 0x00cff3000000ffff # 0x28: data, DPL 3
    mov [rdi + {gdt} + 0x28], rax
    mov rax, 0x00affb000000ffff # 0x30: code64, DPL 3
    mov [rdi + {gdt} + 0x30], rax
    mov rax, 0x0000890000000000 + {tss_limit} # 0x40: TSS, base filled in below
    mov [rdi + {gdt} + 0x40], rax
    lea rax, [rdi + {tss}]
    mov [rdi + {gdt} + 0x42], ax
    shr eax, 16
    mov [rdi + {gdt} + 0x44], al
    mov [rdi + {gdt} + 0x47], ah
    lea rsp, [rdi + {ring0_top}]
    mov [rdi + {tss} + 4], rsp          # RSP0
    mov word ptr [rdi + {tss} + 0x66], {io_bitmap_base}
    mov byte ptr [rdi + {tss} + {tss_limit}], 0xff
    lea rax, [rdi + {gdt}]
    push rax
    sub rsp, 8
    mov word ptr [rsp + 6], 0x4f
    lgdt [rsp + 6]
    add rsp, 16
    lidt [rip + guest_idtr]
    mov eax, 0x40
    ltr ax
    mov eax, 0x2b
    mov ds, eax
    mov es, eax
    mov gs, eax
    mov dword ptr [rdi + {preempt_count}], {preempt_enabled}
    mov ecx, 0xc0000101         # GS base: the block
    mov eax, edi
    xor edx, edx
    wrmsr
    # SYSCALL's target, by which a hypervisor finds the text of a kernel.
    mov ecx, 0xc0000082
    mov eax, offset no_system_calls
    wrmsr
    push 0x2b
    lea rax, [rdi + {stack_top} - 8]    # as after a CALL
    push rax
    push 0x3202                         # IOPL 3, IF
    push 0x33
    push rsi
    iretq

no_system_calls:
    ud2

ap_long_mode:
    mov rdi, [rip + {starting_cpu}]
    mov esi, offset {ap_main}
    jmp enter_cpl3
    .popsection

    .pushsection .data.boot, "aw", @progbits
    .balign 8
    .word 0, 0, 0
guest_idtr:
    .word 0xfff
    .quad {idt}

    # Identity map, user-accessible at every level: the first GiB with 2 MiB pages (accessed and
    # dirty set beforehand), and uncached the 2 MiB of the virtio devices and of the local APIC.
    .balign 4096
guest_pml4:
    .quad guest_pdpt + 0x67
    .zero 4096 - 8
guest_pdpt:
    .quad guest_pd_low + 0x67, 0, 0, guest_pd_high + 0x67
    .zero 4096 - 32
guest_pd_low:
    .set page, 0
    .rept 512
    .quad page + 0xe7
    .set page, page + 0x200000
    .endr
guest_pd_high:
    .zero 128 * 8
    .quad {virtio_mmio} + 0xff
    .zero 374 * 8
    .quad {local_apic} + 0xff
    .zero 8 * 8
    .popsection
    "#,
    cpus = sym crate::cpu::BLOCKS,
    boot_main = sym crate::start::boot_main,
    ap_main = sym crate::start::ap_main,
    boot_params = sym crate::boot_params::ADDRESS,
    starting_cpu = sym crate::smp::STARTING_CPU,
    virtio_mmio = const VIRTIO_MMIO,
    local_apic = const LOCAL_APIC,
    idt = sym crate::idt::TABLE,
    gdt = const Cpu::GDT_OFFSET,
    tss = const Cpu::TSS_OFFSET,
    tss_limit = const Cpu::TSS_LIMIT,
    io_bitmap_base = const Cpu::IO_BITMAP_BASE,
    ring0_top = const RING0_TOP,
    stack_top = const RING3_TOP,
    preempt_count = const Cpu::PREEMPT_COUNT_OFFSET,
    preempt_enabled = const preempt_count::ENABLED,
);

// A started AP is in real mode at TRAMPOLINE:0 with all segment bases but CS zero. Paging and
// protection go on together, straight into long mode; the far jump loads a 64-bit CS.
global_asm!(
    r#"
    .pushsection .data.boot, "aw", @progbits
    .globl trampoline_start
    .globl trampoline_end
    .balign 16
    .code16
trampoline_start:
    cli
    lgdtl {base} + (trampoline_gdtr - trampoline_start)
    movl $0x620, %eax
    movl %eax, %cr4
    movl $guest_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x901, %eax            # SCE | LME | NXE
    wrmsr
    movl $0x80050033, %eax
    movl %eax, %cr0
    .byte 0x66, 0xea            # far jump, 32-bit offset
    .long ap_long_mode
    .word 0x08
    .balign 8
trampoline_gdt:
    .quad 0, 0x00af9b000000ffff
trampoline_gdtr:
    .word 15
    .long {base} + (trampoline_gdt - trampoline_start)
trampoline_end:
    .code64
    .popsection
    "#,
    base = const TRAMPOLINE,
    options(att_syntax),
);
