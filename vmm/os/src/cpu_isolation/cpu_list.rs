//! Lists of CPUs as the kernel reads and writes them, such as `0-2,5`.

/// Most CPUs that a list may have: as many as a set of CPUs in `sys`.
const MOST_CPUS: usize = 1 << 20;

/// The CPUs of a list, ascending. `None` if the text is no such list.
pub(super) fn parse(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for range in text.trim().split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= MOST_CPUS {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

/// The list of `cpus`, which are ascending.
pub(super) fn format(cpus: &[usize]) -> String {
    let ranges = cpus.chunk_by(|one, next| one + 1 == *next);
    let texts: Vec<String> = ranges
        .map(|range| match range {
            [first, .., last] => format!("{first}-{last}"),
            [only] => only.to_string(),
            [] => String::new(),
        })
        .collect();
    texts.join(",")
}

/// Those of `cpus` that are not in `others`.
pub(super) fn without(cpus: &[usize], others: &[usize]) -> Vec<usize> {
    let kept = cpus.iter().filter(|cpu| !others.contains(cpu));
    kept.copied().collect()
}

/// Those of `cpus` that are also in `others`.
pub(super) fn within(cpus: &[usize], others: &[usize]) -> Vec<usize> {
    let kept = cpus.iter().filter(|cpu| others.contains(cpu));
    kept.copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written_as_the_kernel_does() {
        for (text, cpus) in [
            ("", vec![]),
            ("0", vec![0]),
            ("0-2,5", vec![0, 1, 2, 5]),
            ("1,3-4", vec![1, 3, 4]),
        ] {
            assert_eq!(parse(&format!("{text}\n")).as_ref(), Some(&cpus));
            assert_eq!(format(&cpus), text);
        }
        for bad in ["x", "1-", "-1", "0-99999999999", "0-4294967295"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
