//! Devices that would be taken for one: two disks of a guest with one serial number, two network
//! interfaces of a guest with one address, two guests that listen at one path or print to one file.

use std::collections::BTreeMap;

use crate::error::{ConfigError, fail};
use crate::guest::GuestConfig;

/// Refuses two guests that would listen at the same path.
pub(super) fn check_sockets(guests: &[GuestConfig]) -> Result<(), ConfigError> {
    let mut taken = BTreeMap::new();
    for guest in guests {
        let Some(vsock) = &guest.vsock else { continue };
        if let Some(other) = taken.insert(&vsock.path, &guest.name) {
            return fail(format!(
                "guests {other} and {} have the same vsock path {}: give each its own",
                guest.name,
                vsock.path.display()
            ));
        }
    }
    Ok(())
}

/// Refuses two guests whose consoles would be the same file or socket.
pub(super) fn check_consoles(guests: &[GuestConfig]) -> Result<(), ConfigError> {
    let mut taken = BTreeMap::new();
    for guest in guests {
        let Some(path) = guest.console.path() else {
            continue;
        };
        if let Some(other) = taken.insert(path, &guest.name) {
            return fail(format!(
                "guests {other} and {} have the same console {}: give each its own",
                guest.name, guest.console
            ));
        }
    }
    Ok(())
}

/// Refuses two devices of `guest` that the guest could not tell apart.
pub(super) fn check_identities(guest: &GuestConfig) -> Result<(), ConfigError> {
    let name = &guest.name;
    let serials: Vec<_> = guest
        .disks
        .iter()
        .filter_map(|disk| disk.serial.as_ref())
        .collect();
    if let Some(serial) = first_repeated(&serials) {
        return fail(format!(
            "guest {name}: two disks have the serial {serial}, and the guest would take them for one: \
             give each its own"
        ));
    }
    let macs: Vec<_> = guest.nets.iter().filter_map(|net| net.mac).collect();
    if let Some(mac) = first_repeated(&macs) {
        let mac: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        return fail(format!(
            "guest {name}: two network interfaces have the address {}: give each its own",
            mac.join(":")
        ));
    }
    Ok(())
}

/// The first value that occurs again behind itself.
fn first_repeated<T: PartialEq>(values: &[T]) -> Option<&T> {
    let mut rest = values.iter();
    std::iter::from_fn(|| rest.next().map(|value| (value, rest.as_slice())))
        .find(|(value, others)| others.contains(value))
        .map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::KernelSource;

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
        check_identities(&guest(&["a,serial=1", "b,serial=2", "c", "c,ro"], &[]))
            .expect("they differ");
        let error = check_identities(&guest(&["a,serial=1", "b", "c,serial=1"], &[]))
            .expect_err("the same");
        assert!(error.0.contains("serial 1"), "{error}");
    }

    #[test]
    fn guests_with_one_file_or_socket_for_two_consoles_are_refused() {
        let guests = |consoles: &[&str]| -> Vec<GuestConfig> {
            let guest = |(number, console): (usize, &&str)| GuestConfig {
                console: console.parse().expect("a console"),
                ..GuestConfig::new(&format!("g{number}"))
            };
            consoles.iter().enumerate().map(guest).collect()
        };
        check_consoles(&guests(&[
            "stdio", "stdio", "pty", "pty", "off", "unix:a", "file:b",
        ]))
        .expect("they differ");
        let error = check_consoles(&guests(&["unix:a", "pty", "unix:a"])).expect_err("the same");
        assert!(error.0.contains("guests g0 and g2"), "{error}");
        check_consoles(&guests(&["unix:a", "file:a"])).expect_err("the same");
    }

    #[test]
    fn interfaces_of_a_guest_with_one_address_are_refused() {
        let first = "tap=t0,mac=52:54:00:12:34:56";
        check_identities(&guest(
            &[],
            &[first, "tap=t1,mac=52:54:00:12:34:57", "tap=t2", "tap=t3"],
        ))
        .expect("they differ");
        let error = check_identities(&guest(
            &[],
            &[first, "tap=t1", "tap=t2,mac=52:54:00:12:34:56"],
        ))
        .expect_err("the same");
        assert!(error.0.contains("52:54:00:12:34:56"), "{error}");
    }
}
