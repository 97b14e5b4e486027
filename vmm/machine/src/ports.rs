//! Port I/O: which device answers at which port. See [`baton_abi::hints`] and
//! [`baton_abi::testdev`] for the two that are ours.

use baton_abi::{hints as abi, testdev};
use baton_os::nospec;

use super::Guest;
use super::console::LineBuffer;
use super::power;
use super::testdev::ResultRegisters;
use super::vcpu::Doorbell;

/// First port of the serial port COM1.
pub const SERIAL_BASE: u16 = 0x3f8;
const SERIAL_LAST: u16 = SERIAL_BASE + 7;
/// Command port of the keyboard controller, whose reset line PC kernels use to reboot.
pub const KEYBOARD_COMMAND: u16 = 0x64;
/// Its command that resets the machine.
pub const KEYBOARD_RESET: u8 = 0xfe;

/// State of devices that each vCPU has for itself.
#[derive(Debug)]
pub struct VcpuPorts {
    /// The test device's result registers.
    pub results: ResultRegisters,
    /// The debug console's line.
    pub console: LineBuffer,
}

/// What an `OUT` asks for beyond the device's own business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// The scheduler should hear this.
    Doorbell(Doorbell),
    /// The guest is done, with this code.
    Exit(u32),
    /// The value made no sense and changed nothing.
    Nonsense,
}

/// Carries out an `OUT` of `data` by vCPU `index`. A string instruction gives several elements at
/// once; only the byte-wide devices take those.
pub fn write(guest: &Guest, index: u32, own: &mut VcpuPorts, port: u16, data: &[u8]) -> Effect {
    match port {
        testdev::PORT_CONSOLE => {
            data.iter().for_each(|byte| own.console.push(*byte));
            return Effect::None;
        }
        SERIAL_BASE..=SERIAL_LAST => {
            guest.serial_write((port - SERIAL_BASE) as u8, data);
            return Effect::None;
        }
        KEYBOARD_COMMAND => {
            return if data.first() == Some(&KEYBOARD_RESET) {
                Effect::Exit(0)
            } else {
                Effect::None
            };
        }
        power::EVENT..=power::LAST => {
            return if guest.power.write(port, data) {
                Effect::Exit(0)
            } else {
                Effect::None
            };
        }
        _ => {}
    }
    let is_ours = matches!(
        port,
        abi::PORT_HINT_PAGE
            | abi::PORT_DOORBELL
            | testdev::PORT_RESULT_KEY
            | testdev::PORT_RESULT_LO
            | testdev::PORT_RESULT_HI
            | testdev::PORT_EXIT
    );
    if !is_ours {
        return Effect::None;
    }
    let Ok(bytes) = <[u8; 4]>::try_from(data) else {
        return Effect::Nonsense;
    };
    let value = u32::from_le_bytes(bytes);
    match port {
        abi::PORT_HINT_PAGE => match guest.register_hint_page(index, value) {
            Ok(()) => Effect::None,
            Err(_) => Effect::Nonsense,
        },
        abi::PORT_DOORBELL => {
            doorbell(value, guest.vcpus()).map_or(Effect::Nonsense, Effect::Doorbell)
        }
        testdev::PORT_EXIT => Effect::Exit(value),
        _ => {
            match own.results.write(port, value) {
                Some((testdev::RESULT_WAITS_AT, address)) => {
                    let memory = guest.memory().regions();
                    if !guest.results.record_waits(index, address, memory) {
                        return Effect::Nonsense;
                    }
                }
                Some((key, result)) => guest.results.record(index, key, result),
                None => {}
            }
            Effect::None
        }
    }
}

/// Fills `data` for an `IN` by vCPU `index`; ports where nothing answers read all ones.
pub fn read(guest: &Guest, index: u32, port: u16, data: &mut [u8]) {
    match port {
        SERIAL_BASE..=SERIAL_LAST => {
            return guest.serial_read((port - SERIAL_BASE) as u8, data);
        }
        power::EVENT..=power::LAST => return guest.power.read(port, data),
        // Ready for a command, so that a guest that resets by it does not wait.
        KEYBOARD_COMMAND => return data.fill(0),
        _ => {}
    }
    let value = match port {
        abi::PORT_MAGIC => abi::MAGIC,
        abi::PORT_FEATURES => abi::VERSION | guest.features() << 16,
        abi::PORT_HINT_PAGE => u32::from(guest.hints.is_registered(index)),
        testdev::PORT_VCPUS => guest.vcpus(),
        testdev::PORT_TSC_KHZ => guest.clock.khz(),
        testdev::PORT_INDEX => index,
        _ => u32::MAX,
    };
    match <&mut [u8; 4]>::try_from(&mut *data) {
        Ok(word) => *word = value.to_le_bytes(),
        Err(_) => data.fill(0xff),
    }
}

/// The doorbell that `value` rings in a guest of `vcpus` vCPUs; `None` if it makes no sense.
fn doorbell(value: u32, vcpus: u32) -> Option<Doorbell> {
    let reason = value & ((1 << abi::DOORBELL_REASON_BITS) - 1);
    let argument = value >> abi::DOORBELL_REASON_BITS;
    let named =
        |index: u32| nospec::below(index as usize, vcpus as usize).map(|index| index as u32);
    match reason {
        abi::DOORBELL_WAIT => Some(Doorbell::Wait),
        abi::DOORBELL_RELEASE => Some(Doorbell::Release {
            // 0 names nobody.
            to: match argument.checked_sub(1) {
                Some(index) => Some(named(index)?),
                None => None,
            },
        }),
        abi::DOORBELL_IDLE => Some(Doorbell::Idle),
        abi::DOORBELL_WAKE => Some(Doorbell::Wake {
            target: named(argument)?,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_abi::hints::{DOORBELL_IDLE, DOORBELL_RELEASE, DOORBELL_WAIT, DOORBELL_WAKE};

    #[test]
    fn doorbells_name_only_vcpus_that_exist() {
        let ring = |reason, argument| doorbell(abi::doorbell(reason, argument), 4);
        assert_eq!(ring(DOORBELL_WAIT, 0), Some(Doorbell::Wait));
        assert_eq!(ring(DOORBELL_IDLE, 0), Some(Doorbell::Idle));
        assert_eq!(
            ring(DOORBELL_RELEASE, 0),
            Some(Doorbell::Release { to: None })
        );
        assert_eq!(
            ring(DOORBELL_RELEASE, 4),
            Some(Doorbell::Release { to: Some(3) })
        );
        assert_eq!(ring(DOORBELL_RELEASE, 5), None);
        assert_eq!(ring(DOORBELL_WAKE, 3), Some(Doorbell::Wake { target: 3 }));
        assert_eq!(ring(DOORBELL_WAKE, 4), None);
        assert_eq!(ring(0, 0), None);
        assert_eq!(ring(0xff, 0x00ff_ffff), None);
    }
}
