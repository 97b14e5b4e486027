//! The user's terminal while it belongs to the guest: every key goes to the guest, except Ctrl-a.

use std::mem;
use std::os::fd::BorrowedFd;

use baton_os::tty::{Changed, Modes};
use vmm_sys_util::eventfd::EventFd;

/// Ctrl-a, as in QEMU.
const ESCAPE: u8 = 1;

/// What to do with a key that the user has typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// The guest gets this key.
    Guest(u8),
    /// The run is to end.
    Leave,
    /// Nothing is to be done, or the next key decides.
    None,
}

/// Finds Ctrl-a x (leave) and Ctrl-a Ctrl-a (one Ctrl-a for the guest) among the keys.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    escaped: bool,
}

impl Keys {
    /// Takes the next key. Ctrl-a followed by any other key does nothing.
    pub(crate) fn press(&mut self, key: u8) -> Key {
        match (mem::take(&mut self.escaped), key) {
            (false, ESCAPE) => {
                self.escaped = true;
                Key::None
            }
            (false, key) => Key::Guest(key),
            (true, b'x' | b'X') => Key::Leave,
            (true, ESCAPE) => Key::Guest(ESCAPE),
            (true, _) => Key::None,
        }
    }
}

/// A terminal that is in raw mode while this process is in the foreground, until this value is dropped. Keys
/// come one by one, without an echo, and none of them sends a signal to this program. What the guest prints
/// still gets its carriage returns.
#[derive(Debug)]
pub(crate) struct RawTerminal {
    changed: Changed,
    keys: Keys,
}

impl RawTerminal {
    /// Takes `terminal` for the guest; `None` if the file is not a terminal.
    pub(crate) fn new(terminal: BorrowedFd) -> Option<Self> {
        Some(Self {
            changed: Changed::new(terminal, raw)?,
            keys: Keys::default(),
        })
    }

    /// Whether this process is in the foreground, so that the keys are the guest's. Else they are the shell's.
    pub(crate) fn is_ours(&self) -> bool {
        self.changed.is_ours()
    }

    /// Becomes readable when the process goes on after a stop.
    pub(crate) fn continued(&self) -> &EventFd {
        self.changed.continued()
    }

    /// Takes the next key.
    pub(crate) fn press(&mut self, key: u8) -> Key {
        self.keys.press(key)
    }
}

fn raw(modes: Modes) -> Modes {
    Modes {
        local: modes.local & !(libc::ICANON | libc::ECHO | libc::ISIG | libc::IEXTEN),
        input: modes.input & !(libc::ICRNL | libc::INLCR | libc::IGNCR | libc::IXON | libc::ISTRIP),
        ..modes
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsFd, AsRawFd, FromRawFd};
    use std::ptr;

    use super::*;

    fn typed(keys: &[u8]) -> Vec<Key> {
        let mut state = Keys::default();
        keys.iter()
            .map(|key| state.press(*key))
            .filter(|key| *key != Key::None)
            .collect()
    }

    #[test]
    fn ctrl_a_x_leaves_and_ctrl_a_twice_is_one() {
        assert_eq!(typed(b"x\x03"), [Key::Guest(b'x'), Key::Guest(3)]);
        assert_eq!(typed(b"\x01x"), [Key::Leave]);
        assert_eq!(typed(b"\x01\x01x"), [Key::Guest(1), Key::Guest(b'x')]);
        assert_eq!(typed(b"\x01qx"), [Key::Guest(b'x')]);
    }

    #[test]
    fn the_terminal_is_raw_until_dropped_and_then_as_before() {
        let (mut master, mut slave) = (-1, -1);
        // SAFETY: the two numbers are written; no name, settings or size are given.
        let opened = unsafe {
            libc::openpty(
                &raw mut master,
                &raw mut slave,
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        assert_eq!(opened, 0);
        // SAFETY: files that were just opened and belong to nobody else.
        let (_master, slave) = unsafe { (File::from_raw_fd(master), File::from_raw_fd(slave)) };
        let flags = || {
            // SAFETY: as above.
            unsafe {
                let mut termios: libc::termios = mem::zeroed();
                assert_eq!(libc::tcgetattr(slave.as_raw_fd(), &raw mut termios), 0);
                (termios.c_lflag, termios.c_iflag, termios.c_oflag)
            }
        };
        let before = flags();
        assert_ne!(before.0 & libc::ISIG, 0);
        let terminal = RawTerminal::new(slave.as_fd()).expect("a terminal");
        let (local, input, output) = flags();
        assert_eq!(local & (libc::ISIG | libc::ECHO | libc::ICANON), 0);
        assert_eq!(input & libc::ICRNL, 0);
        assert_eq!(output, before.2);
        drop(terminal);
        assert_eq!(flags(), before);
    }

    #[test]
    fn a_file_is_no_terminal() {
        let file = File::open("/dev/null").expect("a file");
        assert!(RawTerminal::new(file.as_fd()).is_none());
    }
}
