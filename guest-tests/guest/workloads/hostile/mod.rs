//! Attempts of a guest to take CPU time from other guests, one file for each kind. Neither the host nor
//! its other guests may be affected.

mod apic_timers;
mod device_hog;
mod escape;
mod idle_timers;
mod idle_until;
mod late_halts;
mod serial_strings;
mod storms;

use crate::config::Attack;
use crate::cpu::Cpu;
use crate::port;

const PIC_MASKS: [u16; 2] = [0x21, 0xa1];

/// The attack on this vCPU.
pub fn run(cpu: &'static Cpu, attack: Attack) {
    // The PICs still deliver at the vectors of exceptions, so all their interrupts are masked.
    for port in PIC_MASKS {
        port::out8(port, 0xff);
    }
    match attack {
        Attack::EscapeInt => escape::by_interrupt(cpu),
        Attack::EscapeFault => escape::by_fault(cpu),
        Attack::EscapeIret => escape::by_return(cpu),
        Attack::DeviceHog => device_hog::run(cpu),
        Attack::IdleTimers => idle_timers::run(cpu),
        Attack::IpiStorm => storms::interrupts(cpu),
        Attack::WakeStorm => storms::wake_ups(cpu),
        Attack::ApicTimers => apic_timers::run(cpu),
        Attack::LateHalts => late_halts::run(cpu),
        Attack::SerialStrings => serial_strings::run(cpu),
    }
}
