//! ACPI's PM1 registers: a guest switches itself off by writing to one.
//!
//! Source: ACPI specification 6.5, 4.8.3.1 and 4.8.3.2. No event is ever raised, so the status is
//! always zero.

use std::sync::atomic::{AtomicU16, Ordering};

/// First port of the status and enable registers.
pub const EVENT: u16 = 0x600;
/// Bytes of both together.
pub const EVENT_LENGTH: u8 = 4;
/// First port of the control register.
pub const CONTROL: u16 = 0x604;
/// Bytes of the control register.
pub const CONTROL_LENGTH: u8 = 2;
/// Last port of all registers.
pub const LAST: u16 = CONTROL + CONTROL_LENGTH as u16 - 1;
const ENABLE: u16 = EVENT + 2;

/// The sleep type that means off, as in the DSDT's `_S5`.
pub const SLEEP_TYPE_OFF: u8 = 5;

/// ACPI mode is on: there is no firmware to switch it on.
const SCI_ENABLE: u16 = 1;
const SLEEP_TYPE_SHIFT: u16 = 10;
const SLEEP_TYPE_MASK: u16 = 7;
const SLEEP_ENABLE: u16 = 1 << 13;

/// The registers of one guest.
#[derive(Debug, Default)]
pub struct PowerRegisters {
    enable: AtomicU16,
    control: AtomicU16,
}

impl PowerRegisters {
    /// Carries out a write to `port`, one of [`EVENT`] to [`LAST`]. True: the guest switches itself off.
    /// Kernels write 16 bits at a time; writes of other widths have no effect.
    #[must_use]
    pub fn write(&self, port: u16, data: &[u8]) -> bool {
        let Ok(bytes) = <[u8; 2]>::try_from(data) else {
            return false;
        };
        let value = u16::from_le_bytes(bytes);
        match port {
            ENABLE => self.enable.store(value, Ordering::Relaxed),
            CONTROL => {
                // SLEEP_ENABLE reads as zero.
                self.control.store(value & !SLEEP_ENABLE, Ordering::Relaxed);
                let kind = value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK;
                return value & SLEEP_ENABLE != 0 && kind == u16::from(SLEEP_TYPE_OFF);
            }
            _ => {}
        }
        false
    }

    /// Carries out a read from `port`, one of [`EVENT`] to [`LAST`].
    pub fn read(&self, port: u16, data: &mut [u8]) {
        let value = match port {
            ENABLE => self.enable.load(Ordering::Relaxed),
            CONTROL => self.control.load(Ordering::Relaxed) | SCI_ENABLE,
            _ => 0,
        };
        data.fill(0);
        for (to, from) in data.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_off_sleep_type_with_sleep_enable_switches_off() {
        let registers = PowerRegisters::default();
        let off = u16::from(SLEEP_TYPE_OFF) << SLEEP_TYPE_SHIFT;
        assert!(!registers.write(CONTROL, &off.to_le_bytes()));
        assert!(!registers.write(CONTROL, &SLEEP_ENABLE.to_le_bytes()));
        assert!(!registers.write(EVENT, &(off | SLEEP_ENABLE).to_le_bytes()));
        assert!(registers.write(CONTROL, &(off | SLEEP_ENABLE).to_le_bytes()));
    }

    #[test]
    fn the_control_register_shows_that_acpi_is_on() {
        let mut word = [0; 2];
        PowerRegisters::default().read(CONTROL, &mut word);
        assert_eq!(u16::from_le_bytes(word), SCI_ENABLE);
    }
}
