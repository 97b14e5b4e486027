//! The user's terminal while its keys go to a guest: every key, except Ctrl-a.

use std::mem;
use std::os::fd::BorrowedFd;

use rustix::termios::{InputModes, LocalModes};
use vmm_sys_util::eventfd::EventFd;

use crate::tty::{Changed, Modes};

/// Ctrl-a, as in QEMU.
const ESCAPE: u8 = 1;

/// What to do with a key that the user has typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The guest gets this key.
    Guest(u8),
    /// The keys no longer go to the guest.
    Leave,
    /// Nothing is to be done, or the next key decides.
    None,
}

/// Finds Ctrl-a and a letter (leave) and Ctrl-a a or Ctrl-a Ctrl-a (one Ctrl-a for the guest) among the keys.
#[derive(Debug)]
struct Keys {
    /// The letter, in lower case.
    leave: u8,
    escaped: bool,
}

impl Keys {
    /// Takes the next key. Ctrl-a followed by any other key does nothing.
    fn press(&mut self, key: u8) -> Key {
        match (mem::take(&mut self.escaped), key) {
            (false, ESCAPE) => {
                self.escaped = true;
                Key::None
            }
            (false, key) => Key::Guest(key),
            (true, key) if key.to_ascii_lowercase() == self.leave => Key::Leave,
            (true, ESCAPE | b'a' | b'A') => Key::Guest(ESCAPE),
            (true, _) => Key::None,
        }
    }
}

/// A terminal that is in raw mode while this process is in the foreground, until this value is dropped. Keys
/// come one by one, without an echo, and none of them sends a signal to this program. What the guest prints
/// still gets its carriage returns.
#[derive(Debug)]
pub struct RawTerminal {
    changed: Changed,
    keys: Keys,
}

impl RawTerminal {
    /// Takes `terminal` for the guest, until Ctrl-a and the letter `leave`, in lower case, are typed. `None` if the
    /// file is not a terminal, or this process has taken one already.
    pub fn new(terminal: BorrowedFd, leave: u8) -> Option<Self> {
        Some(Self {
            changed: Changed::new(terminal, raw)?,
            keys: Keys {
                leave,
                escaped: false,
            },
        })
    }

    /// Whether this process is in the foreground, so that the keys are the guest's. Else they are the shell's.
    pub fn is_ours(&self) -> bool {
        self.changed.is_ours()
    }

    /// Becomes readable when the process goes on after a stop.
    pub fn continued(&self) -> &EventFd {
        self.changed.continued()
    }

    /// Takes the next key.
    pub fn press(&mut self, key: u8) -> Key {
        self.keys.press(key)
    }
}

fn raw(modes: Modes) -> Modes {
    Modes {
        local: modes.local
            - (LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN),
        input: modes.input
            - (InputModes::ICRNL
                | InputModes::INLCR
                | InputModes::IGNCR
                | InputModes::IXON
                | InputModes::ISTRIP),
        ..modes
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    use rustix::termios::tcgetattr;

    use super::*;

    fn typed(keys: &[u8]) -> Vec<Key> {
        let mut state = Keys {
            leave: b'x',
            escaped: false,
        };
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
        assert_eq!(typed(b"\x01ax"), [Key::Guest(1), Key::Guest(b'x')]);
        assert_eq!(typed(b"\x01qx"), [Key::Guest(b'x')]);
    }

    #[test]
    fn the_terminal_is_raw_until_dropped_and_then_as_before() {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let slave = ioctl_tiocgptpeer(&master, flags).expect("its other end");
        let flags = || {
            let termios = tcgetattr(&slave).expect("its modes");
            (
                termios.local_modes,
                termios.input_modes,
                termios.output_modes,
            )
        };
        let before = flags();
        assert!(before.0.contains(LocalModes::ISIG));
        let terminal = RawTerminal::new(slave.as_fd(), b'x').expect("a terminal");
        let (local, input, output) = flags();
        let cooked = LocalModes::ISIG | LocalModes::ECHO | LocalModes::ICANON;
        assert!(!local.intersects(cooked));
        assert!(!input.contains(InputModes::ICRNL));
        assert_eq!(output, before.2);
        drop(terminal);
        assert_eq!(flags(), before);
    }

    #[test]
    fn a_file_is_no_terminal() {
        let file = File::open("/dev/null").expect("a file");
        assert!(RawTerminal::new(file.as_fd(), b'x').is_none());
    }
}
