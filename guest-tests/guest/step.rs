//! The steps of the workload `devices`, as the command line names them.

use core::str::Split;

/// Longest data of a request, bytes.
pub const BUFFER_LENGTH: usize = 512 << 10;
/// Bytes that describe a segment of a discard.
pub const SEGMENT: usize = 16;
/// Offset of the last register that can be read.
const LAST_REGISTER: u64 = 0xffc;

/// One step.
#[derive(Clone, Copy)]
pub enum Step {
    /// Selects the device in a slot for the steps that follow.
    Device(u32),
    /// Starts it with these of the feature bits 0 to 31, as far as the device offers them.
    Start(u32),
    /// Reads from a disk.
    Read { sector: u64, bytes: usize },
    /// Writes bytes of one value to a disk.
    Write {
        sector: u64,
        bytes: usize,
        value: u8,
    },
    /// Flushes a disk.
    Flush,
    /// Reads a disk's serial number.
    Serial,
    /// Discards consecutive segments of a disk.
    Discard {
        sector: u64,
        sectors: u32,
        segments: usize,
    },
    /// Stops queue 0 and makes it ready again, empty.
    RestartQueue,
    /// Reads the register at an offset.
    Register(u64),
    /// Resets a disk in the middle of a read, so many times.
    ResetAtWork { rounds: u64 },
    /// Adds up the bytes of the RAM disk.
    RamDisk,
}

impl Step {
    /// `None` if the text is no step.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let step = match parts.next()? {
            "device" => Self::Device(u32::try_from(number(&mut parts)?).ok()?),
            "start" => Self::Start(match parts.clone().next() {
                Some(_) => number(&mut parts)? as u32,
                None => u32::MAX,
            }),
            "read" => Self::Read {
                sector: number(&mut parts)?,
                bytes: length(&mut parts)?,
            },
            "write" => Self::Write {
                sector: number(&mut parts)?,
                bytes: length(&mut parts)?,
                value: u8::try_from(number(&mut parts)?).ok()?,
            },
            "flush" => Self::Flush,
            "serial" => Self::Serial,
            "discard" => Self::Discard {
                sector: number(&mut parts)?,
                sectors: u32::try_from(number(&mut parts)?).ok()?,
                segments: segments(&mut parts)?,
            },
            "restart-queue" => Self::RestartQueue,
            "register" => Self::Register(register(&mut parts)?),
            "reset-at-work" => Self::ResetAtWork {
                rounds: number(&mut parts)?,
            },
            "ram-disk" => Self::RamDisk,
            _ => return None,
        };
        parts.next().is_none().then_some(step)
    }
}

fn number(parts: &mut Split<char>) -> Option<u64> {
    let text = parts.next()?;
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// A number of bytes that fits the buffer.
fn length(parts: &mut Split<char>) -> Option<usize> {
    let length = number(parts)? as usize;
    (length <= BUFFER_LENGTH).then_some(length)
}

/// A number of segments whose descriptions fit the buffer.
fn segments(parts: &mut Split<char>) -> Option<usize> {
    let segments = number(parts)? as usize;
    (segments <= BUFFER_LENGTH / SEGMENT).then_some(segments)
}

fn register(parts: &mut Split<char>) -> Option<u64> {
    number(parts).filter(|offset| *offset <= LAST_REGISTER)
}
