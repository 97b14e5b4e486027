//! The keyboard controller (vm-superio's i8042), whose reset line PC kernels use to reboot.

use vm_superio::{I8042Device, Trigger};

/// Command port.
pub const COMMAND: u16 = 0x64;
/// The command that resets the machine.
pub const RESET: u8 = 0xfe;

/// Offset of the command port from the controller's first port.
const COMMAND_OFFSET: u8 = 4;

/// The reset line. Its "error" is the reset: the guest ends with the write that pulls the line.
struct ResetLine;

#[derive(Debug)]
struct ResetRequested;

impl Trigger for ResetLine {
    type E = ResetRequested;

    fn trigger(&self) -> Result<(), ResetRequested> {
        Err(ResetRequested)
    }
}

/// Carries out a write of `data` to [`COMMAND`]. True: the guest resets the machine.
pub(crate) fn write(data: &[u8]) -> bool {
    let mut controller = I8042Device::new(ResetLine);
    data.iter()
        .any(|byte| controller.write(COMMAND_OFFSET, *byte).is_err())
}

/// A read from [`COMMAND`]. The controller is ready for a command, so that a guest that resets by it does
/// not wait.
pub(crate) fn read(data: &mut [u8]) {
    let mut controller = I8042Device::new(ResetLine);
    data.fill_with(|| controller.read(COMMAND_OFFSET));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_reset_command_resets_and_the_controller_is_always_ready() {
        assert!(write(&[RESET]));
        for command in (0..=u8::MAX).filter(|command| *command != RESET) {
            assert!(!write(&[command]), "{command:#x}");
        }
        let mut status = [0xff; 2];
        read(&mut status);
        assert_eq!(status, [0, 0]);
    }
}
