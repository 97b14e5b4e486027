//! ACPI's PM1 registers: a guest switches itself off by writing to one, and reads in another that its power
//! button was pressed.
//!
//! Source: ACPI specification 6.5, 4.8.2.2.1.1 (the button), 4.8.3.1 and 4.8.3.2. The button is the only event.
//! Its status is set by a press and cleared by the guest, which writes a one to it. While it is set and enabled,
//! ACPI's interrupt is asserted: the interrupt is level-triggered, as the MADT declares.

use std::sync::{Mutex, MutexGuard, PoisonError};

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

/// The power button, in the status and in the enable register.
const POWER_BUTTON: u16 = 1 << 8;
/// ACPI mode is on: there is no firmware to switch it on.
const SCI_ENABLE: u16 = 1;
const SLEEP_TYPE_SHIFT: u16 = 10;
const SLEEP_TYPE_MASK: u16 = 7;
const SLEEP_ENABLE: u16 = 1 << 13;

/// The registers of one guest.
#[derive(Debug, Default)]
pub struct PowerRegisters(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    status: u16,
    enable: u16,
    control: u16,
    /// Whether the button was ever pressed while it was enabled.
    was_pressed: bool,
}

impl State {
    /// Whether ACPI's interrupt is asserted.
    fn asserts(&self) -> bool {
        self.status & self.enable & POWER_BUTTON != 0
    }

    /// Makes `change`, and calls `set_line` with the level of the interrupt if that is another one afterwards.
    fn change<T>(&mut self, set_line: impl FnOnce(bool), change: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.asserts();
        let result = change(self);
        if self.asserts() != before {
            set_line(!before);
        }
        result
    }
}

impl PowerRegisters {
    /// Presses the power button. Returns whether the guest has enabled it: a guest that has not does not notice.
    /// `set_line` sets the level of ACPI's interrupt, and is called under a lock, so that the last level stays.
    #[must_use]
    pub fn press_button(&self, set_line: impl FnOnce(bool)) -> bool {
        self.lock().change(set_line, |state| {
            state.status |= POWER_BUTTON;
            let enabled = state.enable & POWER_BUTTON != 0;
            state.was_pressed |= enabled;
            enabled
        })
    }

    /// Whether [`Self::press_button`] has returned true.
    #[must_use]
    pub fn was_pressed(&self) -> bool {
        self.lock().was_pressed
    }

    /// Carries out a write to `port`, one of [`EVENT`] to [`LAST`]. True: the guest switches itself off.
    /// Kernels write 16 bits at a time; writes of other widths have no effect. `set_line` is as in
    /// [`Self::press_button`].
    #[must_use]
    pub fn write(&self, port: u16, data: &[u8], set_line: impl FnOnce(bool)) -> bool {
        let Ok(bytes) = <[u8; 2]>::try_from(data) else {
            return false;
        };
        let value = u16::from_le_bytes(bytes);
        self.lock().change(set_line, |state| match port {
            EVENT => {
                state.status &= !value;
                false
            }
            ENABLE => {
                state.enable = value;
                false
            }
            CONTROL => {
                // SLEEP_ENABLE reads as zero.
                state.control = value & !SLEEP_ENABLE;
                let kind = value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK;
                value & SLEEP_ENABLE != 0 && kind == u16::from(SLEEP_TYPE_OFF)
            }
            _ => false,
        })
    }

    /// Carries out a read from `port`, one of [`EVENT`] to [`LAST`].
    pub fn read(&self, port: u16, data: &mut [u8]) {
        let state = self.lock();
        let value = match port {
            EVENT => state.status,
            ENABLE => state.enable,
            CONTROL => state.control | SCI_ENABLE,
            _ => 0,
        };
        drop(state);
        data.fill(0);
        for (to, from) in data.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn word(registers: &PowerRegisters, port: u16) -> u16 {
        let mut word = [0; 2];
        registers.read(port, &mut word);
        u16::from_le_bytes(word)
    }

    #[test]
    fn only_the_off_sleep_type_with_sleep_enable_switches_off() {
        let registers = PowerRegisters::default();
        let switches_off = |port, value: u16| registers.write(port, &value.to_le_bytes(), |_| {});
        let off = u16::from(SLEEP_TYPE_OFF) << SLEEP_TYPE_SHIFT;
        assert!(!switches_off(CONTROL, off));
        assert!(!switches_off(CONTROL, SLEEP_ENABLE));
        assert!(!switches_off(EVENT, off | SLEEP_ENABLE));
        assert!(switches_off(CONTROL, off | SLEEP_ENABLE));
    }

    #[test]
    fn the_control_register_shows_that_acpi_is_on() {
        assert_eq!(word(&PowerRegisters::default(), CONTROL), SCI_ENABLE);
    }

    #[test]
    fn the_interrupt_is_asserted_while_the_button_is_enabled_and_its_press_not_acknowledged() {
        let registers = PowerRegisters::default();
        let line = Cell::new(None);
        let set = |level| line.set(Some(level));
        let write = |port, value: u16| {
            assert!(!registers.write(port, &value.to_le_bytes(), set));
            line.take()
        };
        let press = || (registers.press_button(set), line.take());

        assert_eq!(press(), (false, None), "the guest has not enabled it");
        assert!(!registers.was_pressed());
        assert_eq!(word(&registers, EVENT), POWER_BUTTON);
        // Linux forgets earlier presses first.
        assert_eq!(write(EVENT, POWER_BUTTON), None);
        assert_eq!(write(ENABLE, POWER_BUTTON), None);
        assert_eq!(press(), (true, Some(true)));
        assert_eq!(press(), (true, None), "it is asserted already");
        assert!(registers.was_pressed());
        // A zero acknowledges nothing, and neither does a one elsewhere.
        assert_eq!(write(EVENT, !POWER_BUTTON), None);
        assert_eq!(write(ENABLE, 0), Some(false));
        assert_eq!(write(ENABLE, POWER_BUTTON), Some(true));
        assert_eq!(write(EVENT, POWER_BUTTON), Some(false));
        assert_eq!(word(&registers, EVENT), 0);
    }

    #[test]
    fn a_byte_at_a_time_changes_nothing() {
        let registers = PowerRegisters::default();
        assert!(!registers.write(ENABLE, &[0xff], |_| {}));
        assert_eq!(word(&registers, ENABLE), 0);
    }
}
