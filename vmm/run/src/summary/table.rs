//! The table of a guest's vCPUs: a column for each counter that has a title, and for exits.

use std::fmt::Write;

use baton_config::units::readable_ns;
use baton_machine::ExitCounts;
use baton_observe::counters::VCPU_COUNTERS;
use vcpu_sched::CounterUnit;

use super::guest_summary::GuestSummary;
use super::vcpu_summary::VcpuSummary;

/// A column about exits: its title, and its number for a vCPU.
type ExitColumn = (&'static str, fn(&ExitCounts) -> u64);

const EXIT_COLUMNS: [ExitColumn; 3] = [
    ("exits", ExitCounts::total),
    ("doorbells", |exits| exits.doorbells),
    ("nonsense", |exits| exits.nonsense),
];

/// A column as it is printed: its title, and a cell for each vCPU.
struct Column {
    title: &'static str,
    cells: Vec<String>,
}

impl Column {
    /// The column of `number` for each vCPU. `None` if all are zero.
    fn new(
        title: &'static str,
        unit: CounterUnit,
        vcpus: &[VcpuSummary],
        number: impl Fn(&VcpuSummary) -> u64,
    ) -> Option<Self> {
        let numbers: Vec<u64> = vcpus.iter().map(number).collect();
        let cell = |&number: &u64| match (number, unit) {
            (0, _) => "-".to_owned(),
            (ns, CounterUnit::Nanoseconds) => readable_ns(ns),
            (count, CounterUnit::Times | CounterUnit::MaxEdges) => count.to_string(),
        };
        numbers.iter().any(|&number| number > 0).then(|| Self {
            title,
            cells: numbers.iter().map(cell).collect(),
        })
    }

    fn width(&self) -> usize {
        let longest = self.cells.iter().map(String::len).max();
        longest.unwrap_or(0).max(self.title.len())
    }
}

/// All columns that are not zero for every vCPU.
fn columns(vcpus: &[VcpuSummary]) -> Vec<Column> {
    let counters = VCPU_COUNTERS.iter().filter_map(|counter| {
        let field = counter.field;
        Column::new(counter.column?, field.unit, vcpus, |vcpu| {
            (field.value)(&vcpu.account.counters)
        })
    });
    let exits = EXIT_COLUMNS.iter().filter_map(|(title, number)| {
        Column::new(title, CounterUnit::Times, vcpus, |vcpu| {
            number(&vcpu.account.exits)
        })
    });
    counters.chain(exits).collect()
}

/// Adds the table of the vCPUs of `guest` to `text`.
pub(super) fn table(text: &mut String, guest: &GuestSummary) {
    let columns = columns(&guest.vcpus);
    // Writing to a string does not fail.
    let _ = write!(text, "  vCPU");
    for column in &columns {
        let _ = write!(text, "  {:>1$}", column.title, column.width());
    }
    text.push('\n');
    for index in 0..guest.vcpus.len() {
        let _ = write!(text, "  {index:>4}");
        for column in &columns {
            let _ = write!(text, "  {:>1$}", column.cells[index], column.width());
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_host::runner::VcpuAccount;
    use vcpu_sched::Counters;

    #[test]
    fn columns_without_a_number_are_left_out() {
        let guest = GuestSummary {
            name: "g".to_owned(),
            vcpus: vec![
                VcpuSummary {
                    account: VcpuAccount {
                        counters: Counters {
                            runtime_ns: 1_000,
                            ..Counters::default()
                        },
                        ..VcpuAccount::default()
                    },
                    ..VcpuSummary::default()
                },
                VcpuSummary::default(),
            ],
            ..Default::default()
        };
        let mut text = String::new();
        table(&mut text, &guest);
        assert_eq!(text, "  vCPU     ran\n     0  1.00us\n     1       -\n");
    }

    #[test]
    fn columns_come_in_the_order_to_which_users_are_used() {
        let titles: Vec<&str> = VCPU_COUNTERS
            .iter()
            .filter_map(|counter| counter.column)
            .chain(EXIT_COLUMNS.map(|(title, _)| title))
            .collect();
        assert_eq!(
            titles.join(", "),
            "ran, charged, elsewhere, donated, received, waited, host steal, preempted, holding, proxied, chain, \
             deferred, promised, delivered, lost to host, lost to overcommit, missed, throttled, switches, moved, exits, doorbells, nonsense"
        );
    }
}
