//! The symbols of a kernel that name its preempt count.

use crate::inferred::LinkedCount;

/// The offset of the count in `struct pcpu_hot`, behind the pointer to the current task.
const COUNT_IN_PCPU_HOT: u64 = 8;

/// The symbols of a kernel that matter here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Symbols {
    /// The count itself: before Linux 6.2, and since 6.15.
    preempt_count: Option<u64>,
    /// The structure that has the count in it: in Linux 6.2 to 6.14.
    pcpu_hot: Option<u64>,
    syscall_entry: Option<u64>,
    /// Before Linux 4.20 system calls may enter the kernel by a copy of the entry.
    has_trampoline: bool,
}

impl Symbols {
    /// Takes the symbol `name`, if it is one that matters.
    pub(super) fn add(&mut self, name: &[u8], value: u64) {
        match name {
            b"__preempt_count" => self.preempt_count = Some(value),
            b"pcpu_hot" => self.pcpu_hot = Some(value),
            b"entry_SYSCALL_64" => self.syscall_entry = Some(value),
            b"_entry_trampoline" => self.has_trampoline = true,
            _ => {}
        }
    }

    /// The name of the symbol by which the count is known.
    pub(super) fn count_name(&self) -> &'static str {
        match self.preempt_count {
            Some(_) => "__preempt_count",
            None => "pcpu_hot",
        }
    }

    /// Where the count has been linked to.
    pub(super) fn count(&self) -> Option<LinkedCount> {
        let in_hot = || Some(self.pcpu_hot?.wrapping_add(COUNT_IN_PCPU_HOT));
        Some(LinkedCount {
            offset: self.preempt_count.or_else(in_hot)?,
            syscall_entry: self.syscall_entry.filter(|_| !self.has_trampoline),
        })
    }

    /// Whether the addresses were hidden, as those of `/proc/kallsyms` are from ordinary users.
    pub(super) fn is_hidden(&self) -> bool {
        self.syscall_entry == Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(symbols: &[(&str, u64)]) -> Option<LinkedCount> {
        let mut all = Symbols::default();
        for (name, value) in symbols {
            all.add(name.as_bytes(), *value);
        }
        all.count()
    }

    #[test]
    fn the_count_is_a_variable_or_lies_behind_the_current_task() {
        let offset = |symbols: &[_]| of(symbols).map(|count| count.offset);
        assert_eq!(offset(&[("__preempt_count", 0x1fb40)]), Some(0x1fb40));
        assert_eq!(offset(&[("pcpu_hot", 0x35000)]), Some(0x35008));
        assert_eq!(offset(&[("current_task", 0x35000)]), None);
        assert_eq!(offset(&[("pcpu_hot", u64::MAX)]), Some(7));
    }

    #[test]
    fn a_copy_of_the_entry_hides_where_system_calls_enter() {
        let symbols = [("__preempt_count", 0x40), ("entry_SYSCALL_64", 1 << 63)];
        let entry = |symbols: &[_]| of(symbols).and_then(|count| count.syscall_entry);
        assert_eq!(entry(&symbols), Some(1 << 63));
        let old = [symbols[0], symbols[1], ("_entry_trampoline", 1)];
        assert_eq!(entry(&old), None);
    }
}
