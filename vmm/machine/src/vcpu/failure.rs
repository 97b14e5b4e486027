//! What KVM reports about a vCPU that cannot go on.

use kvm_bindings::KVM_INTERNAL_ERROR_EMULATION;
use kvm_ioctls::VcpuFd;

/// A description of `KVM_EXIT_INTERNAL_ERROR`, the last exit of `fd`.
pub(super) fn describe_internal_error(fd: &mut VcpuFd) -> String {
    let at = fd
        .get_regs()
        .map(|regs| format!(" at rip {:#x}", regs.rip))
        .unwrap_or_default();
    let run = fd.get_kvm_run();
    // SAFETY: the exit reason is KVM_EXIT_INTERNAL_ERROR, for which KVM fills this member.
    let internal = unsafe { run.__bindgen_anon_1.internal };
    if internal.suberror != KVM_INTERNAL_ERROR_EMULATION {
        return format!("KVM internal error {}{at}", internal.suberror);
    }
    // SAFETY: as above, and this suberror makes it the emulation_failure layout.
    let failure = unsafe { run.__bindgen_anon_1.emulation_failure };
    // SAFETY: plain bytes, zero where KVM gave none.
    let bytes = unsafe { failure.__bindgen_anon_1.__bindgen_anon_1 };
    let known = (bytes.insn_size as usize).min(bytes.insn_bytes.len());
    let code: Vec<String> = bytes.insn_bytes[..known]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("KVM cannot emulate the instruction{at}: {}", code.join(" "))
}
