//! What must differ, or a guest takes two devices for one: serial numbers of its disks and addresses of
//! its network interfaces.

use std::fmt;
use std::str::FromStr;

use super::{ConfigError, GuestConfig, fail};

/// Most bytes of a disk's serial number.
const MAX_SERIAL: usize = 20;

/// A disk's serial number as the user wants it: 1 to 20 printable ASCII characters, neither blanks nor
/// commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serial(String);

impl Serial {
    /// Its characters.
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

/// An address of one station, written `52:54:00:12:34:56`: not of a group, and not the one of nobody.
pub(super) fn parse_mac(text: &str) -> Result<[u8; 6], ConfigError> {
    let mut bytes = text.split(':').map(|part| match part.len() {
        // The number alone could have a sign.
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

/// Checks that no two devices of `guest` have the same name for it.
pub(super) fn check(guest: &GuestConfig) -> Result<(), ConfigError> {
    let name = &guest.name;
    let serials: Vec<_> = guest
        .disks
        .iter()
        .filter_map(|disk| disk.serial.as_ref())
        .collect();
    if let Some(twice) = first_twice(&serials) {
        return fail(format!(
            "guest {name}: two disks have the serial {twice}, and the guest would take them for one: give \
             each its own"
        ));
    }
    let macs: Vec<_> = guest.nets.iter().filter_map(|net| net.mac).collect();
    if let Some(twice) = first_twice(&macs) {
        let twice: Vec<String> = twice.iter().map(|byte| format!("{byte:02x}")).collect();
        return fail(format!(
            "guest {name}: two network interfaces have the address {}: give each its own",
            twice.join(":")
        ));
    }
    Ok(())
}

/// The first value that stands there again further on.
fn first_twice<T: PartialEq>(values: &[T]) -> Option<&T> {
    let mut rest = values.iter();
    std::iter::from_fn(|| rest.next().map(|value| (value, rest.as_slice())))
        .find(|(value, others)| others.contains(value))
        .map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelSource;

    fn guest(disks: &[&str], nets: &[&str]) -> GuestConfig {
        GuestConfig {
            kernel: KernelSource::Path("vmlinux".into()),
            disks: disks
                .iter()
                .map(|disk| disk.parse().expect("a disk"))
                .collect(),
            nets: nets
                .iter()
                .map(|net| net.parse().expect("an interface"))
                .collect(),
            ..GuestConfig::new("a")
        }
    }

    #[test]
    fn disks_of_a_guest_that_would_look_like_one_are_refused() {
        check(&guest(&["a,serial=1", "b,serial=2", "c", "c,ro"], &[])).expect("they differ");
        let error = check(&guest(&["a,serial=1", "b", "c,serial=1"], &[])).expect_err("the same");
        assert!(error.0.contains("serial 1"), "{error}");
    }

    #[test]
    fn interfaces_of_a_guest_with_one_address_are_refused() {
        let first = "tap=t0,mac=52:54:00:12:34:56";
        check(&guest(
            &[],
            &[first, "tap=t1,mac=52:54:00:12:34:57", "tap=t2", "tap=t3"],
        ))
        .expect("they differ");
        let error = check(&guest(
            &[],
            &[first, "tap=t1", "tap=t2,mac=52:54:00:12:34:56"],
        ))
        .expect_err("the same");
        assert!(error.0.contains("52:54:00:12:34:56"), "{error}");
    }

    #[test]
    fn addresses_of_nobody_and_of_groups_are_no_addresses_of_an_interface() {
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
    fn a_serial_is_what_a_guest_can_read() {
        for good in ["1", "root-1", "01234567890123456789"] {
            assert_eq!(good.parse::<Serial>().expect(good).as_str(), good);
        }
        for bad in ["", "012345678901234567890", "a b", "\n", "\u{e4}"] {
            bad.parse::<Serial>().expect_err(bad);
        }
    }
}
