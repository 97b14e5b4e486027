//! Port I/O: which device answers at which port. See [`baton_abi::hints`] and
//! [`baton_abi::testdev`] for the two devices that are Baton's own.

use baton_abi::{hints as abi, testdev};

use crate::console::LineBuffer;
use crate::doorbell::Doorbell;
use crate::guest::Guest;
use crate::i8042;
use crate::power;
use crate::serial;
use crate::testdev::ResultRegisters;

/// State of devices of which each vCPU has its own.
#[derive(Debug)]
pub struct VcpuPorts {
    /// The test device's result registers.
    pub results: ResultRegisters,
    /// The debug console's line.
    pub console: LineBuffer,
}

/// What an `OUT` requests beyond what the device itself has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortEffect {
    /// Nothing.
    None,
    /// The guest rang, which concerns the scheduler.
    Doorbell(Doorbell),
    /// The guest is done, with this code.
    Exit(u32),
    /// The guest switches itself off.
    PowerOff,
    /// The guest resets itself.
    Reset,
    /// The value made no sense and changed nothing.
    Nonsense,
}

/// Carries out an `OUT` of `data` by vCPU `index`. A string instruction gives several elements at
/// once; only the byte-wide devices accept those.
pub fn write(guest: &Guest, index: u32, own: &mut VcpuPorts, port: u16, data: &[u8]) -> PortEffect {
    match port {
        testdev::PORT_CONSOLE => {
            data.iter().for_each(|byte| own.console.push(*byte));
            PortEffect::None
        }
        serial::FIRST_PORT..=serial::LAST_PORT => {
            guest
                .serial()
                .write((port - serial::FIRST_PORT) as u8, data);
            PortEffect::None
        }
        i8042::COMMAND => match i8042::write(data) {
            true => PortEffect::Reset,
            false => PortEffect::None,
        },
        power::EVENT..=power::LAST => match guest.write_power(port, data) {
            true => PortEffect::PowerOff,
            false => PortEffect::None,
        },
        abi::PORT_HINT_PAGE
        | abi::PORT_DOORBELL
        | testdev::PORT_RESULT_KEY
        | testdev::PORT_RESULT_LO
        | testdev::PORT_RESULT_HI
        | testdev::PORT_EXIT => match <[u8; 4]>::try_from(data) {
            Ok(bytes) => write_word(guest, index, own, port, u32::from_le_bytes(bytes)),
            Err(_) => PortEffect::Nonsense,
        },
        _ => PortEffect::None,
    }
}

/// Carries out an `OUT` of `value` to a port of the hint ABI or of the test device.
fn write_word(guest: &Guest, index: u32, own: &mut VcpuPorts, port: u16, value: u32) -> PortEffect {
    match port {
        abi::PORT_HINT_PAGE => match guest.register_hint_page(index, value) {
            Ok(()) => PortEffect::None,
            Err(_) => PortEffect::Nonsense,
        },
        abi::PORT_DOORBELL => Doorbell::decode(value, guest.vcpus())
            .map_or(PortEffect::Nonsense, PortEffect::Doorbell),
        testdev::PORT_EXIT => PortEffect::Exit(value),
        _ => match own.results.write(port, value) {
            Some((key, result)) => record_result(guest, index, key, result),
            None => PortEffect::None,
        },
    }
}

fn record_result(guest: &Guest, index: u32, key: u32, value: u64) -> PortEffect {
    if key != testdev::RESULT_WAITS_AT {
        guest.results.record(index, key, value);
        return PortEffect::None;
    }
    let memory = guest.memory().regions();
    match guest.results.record_waits(index, value, memory) {
        true => PortEffect::None,
        false => PortEffect::Nonsense,
    }
}

/// Fills `data` for an `IN` by vCPU `index`. Ports without a device return all ones.
pub fn read(guest: &Guest, index: u32, port: u16, data: &mut [u8]) {
    match port {
        serial::FIRST_PORT..=serial::LAST_PORT => {
            return guest.serial().read((port - serial::FIRST_PORT) as u8, data);
        }
        power::EVENT..=power::LAST => return guest.read_power(port, data),
        i8042::COMMAND => return i8042::read(data),
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
