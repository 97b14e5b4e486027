//! What each vCPU's CPUID instruction returns: what KVM supports, with the vCPU's own numbers.

use baton_abi::hints as abi;
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::Kvm;

use crate::firmware_state;

/// Leaf 1, ECX: x2APIC.
const X2APIC: u32 = 1 << 21;
/// KVM's features.
const KVM_FEATURES: u32 = 0x4000_0001;
/// EAX of that leaf: TLB flushes of preempted vCPUs go through the steal time structure.
const PV_TLB_FLUSH: u32 = 1 << 9;
/// Leaf 1, ECX: TSC deadline timer.
const TSC_DEADLINE: u32 = 1 << 24;

/// The CPUID that KVM supports on this host, with Baton's own leaves for `features`. With `own_steal`,
/// steal time is Baton's own, and the features that KVM ties to its steal time are withdrawn.
///
/// # Errors
/// If KVM does not report its CPUID.
pub fn supported(kvm: &Kvm, features: u32, own_steal: bool) -> Result<CpuId, kvm_ioctls::Error> {
    let mut cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    let deadline = firmware_state::has_deadline_timer(kvm);
    for entry in cpuid.as_mut_slice() {
        if entry.function == 1 {
            entry.ecx |= X2APIC;
            if deadline {
                entry.ecx |= TSC_DEADLINE;
            }
        }
        if entry.function == KVM_FEATURES && own_steal {
            entry.eax &= !PV_TLB_FLUSH;
        }
    }
    // KVM's own signature is at the first hypervisor leaf. Further ones are 0x100 apart.
    let [ebx, ecx, edx] = abi::CPUID_SIGNATURE;
    let own_leaves = [
        kvm_cpuid_entry2 {
            function: abi::CPUID_BASE,
            eax: abi::CPUID_BASE + 1,
            ebx,
            ecx,
            edx,
            ..Default::default()
        },
        kvm_cpuid_entry2 {
            function: abi::CPUID_BASE + 1,
            eax: abi::VERSION,
            ebx: features,
            ecx: abi::PORT_MAGIC.into(),
            ..Default::default()
        },
    ];
    for entry in own_leaves {
        // Only a full list refuses a leaf. A guest can still find Baton by the ports.
        let _ = cpuid.push(entry);
    }
    Ok(cpuid)
}

/// `supported` with the numbers of vCPU `index` of `cpus`: its APIC id, and one thread per core.
#[must_use]
pub fn for_vcpu(supported: &CpuId, index: u32, cpus: u32) -> CpuId {
    let mut cpuid = supported.clone();
    // Bits of an APIC id that number the cores of the one package.
    let core_bits = u32::BITS - cpus.saturating_sub(1).leading_zeros();
    for entry in cpuid.as_mut_slice() {
        match (entry.function, entry.index) {
            (0x1, _) => {
                // EBX: initial APIC id in bits 31-24, logical processors in 23-16.
                entry.ebx &= 0x0000_ffff;
                entry.ebx |= (index & 0xff) << 24 | cpus.min(255) << 16;
                // EDX bit 28, HTT: the number above is valid.
                entry.edx &= !(1 << 28);
                entry.edx |= u32::from(cpus > 1) << 28;
                // ECX bit 31: this is a virtual machine.
                entry.ecx |= 1 << 31;
            }
            // Extended topology: level 0 threads (one per core), level 1 cores, x2APIC id in EDX.
            (0xb | 0x1f, level) => {
                let (shift, count, kind) = match level {
                    0 => (0, 1, 1),
                    1 => (core_bits, cpus, 2),
                    _ => (0, 0, 0),
                };
                entry.eax = shift;
                entry.ebx = count;
                entry.ecx = level | kind << 8;
                entry.edx = index;
            }
            // AMD: core bits of the APIC id and number of cores less one.
            (0x8000_0008, _) => {
                entry.ecx = core_bits << 12 | cpus.saturating_sub(1).min(255);
            }
            // AMD: extended APIC id, core id with one thread per core.
            (0x8000_001e, _) => {
                entry.eax = index;
                entry.ebx = index & 0xff;
                entry.ecx = 0;
            }
            (leaf, _) if leaf == abi::CPUID_BASE + 1 => entry.edx = index,
            _ => {}
        }
    }
    cpuid
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvm_bindings::kvm_cpuid_entry2;

    #[test]
    fn each_vcpu_sees_its_own_apic_id_in_all_three_places() {
        let leaf = |function, index| kvm_cpuid_entry2 {
            function,
            index,
            ebx: 0xffff_ffff,
            ..Default::default()
        };
        let base =
            CpuId::from_entries(&[leaf(1, 0), leaf(0xb, 0), leaf(0xb, 1), leaf(0x8000_001e, 0)])
                .expect("entries");
        let cpuid = for_vcpu(&base, 3, 6);
        let entries = cpuid.as_slice();
        assert_eq!(entries[0].ebx, 0x0306_ffff);
        assert_eq!(entries[1].edx, 3);
        assert_eq!((entries[2].eax, entries[2].ebx), (3, 6));
        assert_eq!(entries[3].eax, 3);
    }

    #[test]
    fn a_single_vcpu_has_no_core_bits() {
        let base = CpuId::from_entries(&[kvm_cpuid_entry2 {
            function: 0xb,
            index: 1,
            ..Default::default()
        }])
        .expect("entries");
        let cpuid = for_vcpu(&base, 0, 1);
        assert_eq!((cpuid.as_slice()[0].eax, cpuid.as_slice()[0].ebx), (0, 1));
    }
}
