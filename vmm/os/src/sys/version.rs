//! The version of the running kernel.

/// Major and minor number of the running kernel, if it can be read.
#[must_use]
pub fn kernel_version() -> Option<(u32, u32)> {
    parse_version(&std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?)
}

/// Major and minor number of a release such as `6.12.1-debian`.
pub fn parse_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_are_compared_by_number() {
        assert_eq!(parse_version("6.13.0-rc1+deb13"), Some((6, 13)));
        assert!(parse_version("6.9.12") < Some((6, 13)));
        assert_eq!(parse_version("unknown"), None);
    }
}
