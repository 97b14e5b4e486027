//! The requests (`ioctl`) that stay permitted, by type and number as `linux/kvm.h` and its neighbours have them. The
//! kernel checks direction and size itself.

/// The type of KVM's requests.
const KVM: u16 = 0xae;
/// The type of requests to perf events.
const PERF: u16 = b'$' as u16;
/// The type of requests to terminals, taps and files.
const TTY: u16 = b'T' as u16;

/// Requests of one type.
struct Requests {
    kind: u16,
    numbers: &'static [u16],
}

const PERMITTED: [Requests; 3] = [
    Requests {
        kind: KVM,
        numbers: &[
            0x80, // KVM_RUN: first, because the filter tries them in this order
            0x98, // KVM_GET_MP_STATE
            0x99, // KVM_SET_MP_STATE
            0x9b, // KVM_SET_GUEST_DEBUG
            0x8e, // KVM_GET_LAPIC
            0x8f, // KVM_SET_LAPIC
            0x81, // KVM_GET_REGS
            0x82, // KVM_SET_REGS
            0x83, // KVM_GET_SREGS
            0x84, // KVM_SET_SREGS
            0x88, // KVM_GET_MSRS
            0x89, // KVM_SET_MSRS
            0x90, // KVM_SET_CPUID2
            0xa2, // KVM_SET_TSC_KHZ
            0xa3, // KVM_GET_TSC_KHZ, KVM_ENABLE_CAP
            0xad, // KVM_KVMCLOCK_CTRL
            0x61, // KVM_IRQ_LINE
            0xa5, // KVM_SIGNAL_MSI
            0xe1, // KVM_SET_DEVICE_ATTR
            0x00, // KVM_GET_API_VERSION
            0x01, // KVM_CREATE_VM
            0x03, // KVM_CHECK_EXTENSION
            0x04, // KVM_GET_VCPU_MMAP_SIZE
            0x05, // KVM_GET_SUPPORTED_CPUID
            0x41, // KVM_CREATE_VCPU
            0x46, // KVM_SET_USER_MEMORY_REGION
            0x47, // KVM_SET_TSS_ADDR
            0x60, // KVM_CREATE_IRQCHIP
            0x76, // KVM_IRQFD
            0x77, // KVM_CREATE_PIT2
            0x79, // KVM_IOEVENTFD
            0x9f, // KVM_GET_VCPU_EVENTS
            0xa0, // KVM_SET_VCPU_EVENTS
            0xc6, // KVM_X86_SET_MSR_FILTER
        ],
    },
    Requests {
        kind: PERF,
        numbers: &[
            2, // PERF_EVENT_IOC_REFRESH
            0, // PERF_EVENT_IOC_ENABLE
            1, // PERF_EVENT_IOC_DISABLE
            3, // PERF_EVENT_IOC_RESET
            4, // PERF_EVENT_IOC_PERIOD
        ],
    },
    Requests {
        kind: TTY,
        numbers: &[
            0x01, // TCGETS
            0x02, // TCSETS
            0x03, // TCSETSW
            0x04, // TCSETSF
            0x0b, // TCFLSH
            0x2a, // TCGETS2
            0x2b, // TCSETS2
            0x2c, // TCSETSW2
            0x2d, // TCSETSF2
            0x0f, // TIOCGPGRP
            0x13, // TIOCGWINSZ
            0x1b, // FIONREAD
            0x21, // FIONBIO
            0x30, // TIOCGPTN
            0x31, // TIOCSPTLCK
            0x41, // TIOCGPTPEER
            0x51, // FIOCLEX
            202,  // TUNSETIFF
            208,  // TUNSETOFFLOAD
            216,  // TUNSETVNETHDRSZ
        ],
    },
];

/// The bits of a request that have its type and its number.
pub(crate) const TYPE_AND_NUMBER: u64 = 0xffff;

/// Type and number of each request that stays permitted, the most frequent first.
pub(crate) fn permitted() -> impl Iterator<Item = u64> {
    PERMITTED.iter().flat_map(|requests| {
        let number = |&number: &u16| u64::from(requests.kind << 8 | number);
        requests.numbers.iter().map(number)
    })
}
