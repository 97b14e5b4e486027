//! The state of a vCPU that the firmware of a PC would set, and KVM's own reset does not.

use kvm_bindings::{KVM_CAP_TSC_DEADLINE_TIMER, Msrs, kvm_msr_entry};
use kvm_ioctls::{Cap, Kvm, VcpuFd};

// Local APIC registers, as offsets into its page, and their values.
const LVT_LINT0: usize = 0x350;
const LVT_LINT1: usize = 0x360;
const DELIVER_NMI: u32 = 0b100 << 8;
const DELIVER_EXTINT: u32 = 0b111 << 8;

const MSR_MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRING: u64 = 1;
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
/// MTRRs on, and all memory write-back.
const MTRR_WRITE_BACK: u64 = 1 << 11 | 6;

/// Connects the PIC and the NMI to the local APIC of `fd` and sets the memory type.
///
/// # Errors
/// If KVM does not accept the state of its own local APIC.
pub(crate) fn set(fd: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    let mut lapic = fd.get_lapic()?;
    for (register, mode) in [(LVT_LINT0, DELIVER_EXTINT), (LVT_LINT1, DELIVER_NMI)] {
        for (byte, value) in lapic.regs[register..].iter_mut().zip(mode.to_le_bytes()) {
            *byte = value as libc::c_char;
        }
    }
    fd.set_lapic(&lapic)?;
    for (index, data) in [
        (MSR_MISC_ENABLE, MISC_ENABLE_FAST_STRING),
        (MSR_MTRR_DEF_TYPE, MTRR_WRITE_BACK),
    ] {
        let entry = kvm_msr_entry {
            index,
            data,
            ..Default::default()
        };
        // One by one: KVM stops at the first MSR that it does not have, and a guest does without that MSR.
        if let Ok(msrs) = Msrs::from_entries(&[entry]) {
            fd.set_msrs(&msrs)?;
        }
    }
    Ok(())
}

/// Whether KVM's local APIC has the TSC deadline timer, which KVM's CPUID does not report.
pub(crate) fn has_deadline_timer(kvm: &Kvm) -> bool {
    kvm.check_extension_raw(KVM_CAP_TSC_DEADLINE_TIMER.into()) > 0
        || kvm.check_extension(Cap::TscDeadlineTimer)
}
