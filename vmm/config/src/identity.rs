//! What tells the devices of a guest apart: serial numbers of disks, addresses of network interfaces.

use std::fmt;
use std::str::FromStr;

use crate::error::{ConfigError, fail};

/// Most bytes of a disk's serial number.
const MAX_SERIAL: usize = 20;

/// A disk's serial number as the user wrote it: 1 to 20 printable ASCII characters other than blanks and
/// commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serial(String);

impl Serial {
    /// The characters of the serial number.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Serial {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fine = (1..=MAX_SERIAL).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b',');
        match fine {
            true => Ok(Self(text.to_owned())),
            false => fail(format!(
                "serial is '{}', must be 1 to {MAX_SERIAL} printable ASCII characters without blanks and \
                 commas, as in root.img,serial=root-1",
                text.escape_default()
            )),
        }
    }
}

/// Reads the address of one interface, `52:54:00:12:34:56`. The addresses of groups and the address of
/// zeros are refused.
pub(super) fn parse_mac(text: &str) -> Result<[u8; 6], ConfigError> {
    let mut bytes = text.split(':').map(|part| match part.len() {
        // `from_str_radix` would accept a sign.
        2 if part.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
            u8::from_str_radix(part, 16).ok()
        }
        _ => None,
    });
    let mut mac = [0; 6];
    let mut whole = true;
    for byte in &mut mac {
        match bytes.next().flatten() {
            Some(value) => *byte = value,
            None => whole = false,
        }
    }
    if whole && bytes.next().is_none() && mac[0] & 1 == 0 && mac != [0; 6] {
        return Ok(mac);
    }
    fail(format!(
        "mac is '{}', must be six pairs of hexadecimal digits, of which the first is even and one is not 00, \
         as in mac=52:54:00:12:34:56",
        text.escape_default()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_zeros_and_those_of_groups_are_refused_for_an_interface() {
        for bad in [
            "00:00:00:00:00:00",
            "ff:ff:ff:ff:ff:ff",
            "01:00:5e:00:00:01",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "5254.0012.3456",
            "+2:54:00:12:34:56",
            "",
        ] {
            let error = parse_mac(bad).expect_err(bad);
            assert!(error.0.contains("52:54:00:12:34:56"), "{error}");
        }
        assert_eq!(parse_mac("00:00:00:00:00:01"), Ok([0, 0, 0, 0, 0, 1]));
    }

    #[test]
    fn a_serial_number_has_only_characters_that_a_guest_can_read() {
        for good in ["1", "root-1", "01234567890123456789"] {
            assert_eq!(good.parse::<Serial>().expect(good).as_str(), good);
        }
        for bad in ["", "012345678901234567890", "a b", "\n", "\u{e4}"] {
            bad.parse::<Serial>().expect_err(bad);
        }
    }
}
