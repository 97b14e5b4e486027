//! The interrupt vectors that the guest uses.

/// The local APIC's timer; ends a halt.
pub const VECTOR_TIMER: u8 = 0x40;
/// The inter-processor interrupt that ends a halt.
pub const VECTOR_WAKE: u8 = 0x41;
/// The inter-processor interrupt whose handler runs at CPL 3; for vCPUs that do not halt.
pub const VECTOR_POKE: u8 = 0x42;
/// The local APIC's timer where it preempts tasks. In the same priority class as the others, so that
/// none of them interrupts another.
pub const VECTOR_TICK: u8 = 0x43;
/// The local APIC's spurious interrupt.
pub const VECTOR_SPURIOUS: u8 = 0xff;
