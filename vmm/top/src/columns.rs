//! The columns of the table: as wide as their longest cells, and as many as fit.

use std::borrow::Cow;

use baton_config::units::readable_ns;
use baton_observe::counters::ControlKey;

use super::app::{Column, VcpuRow};

const PROXIED: ControlKey = ControlKey::of("proxied");
const PROMISED: ControlKey = ControlKey::of("promised_ns");
const DELIVERED: ControlKey = ControlKey::of("delivered_ns");
const LOST_TO_HOST: ControlKey = ControlKey::of("lost_to_host_ns");
const LOST_TO_OVERCOMMIT: ControlKey = ControlKey::of("lost_to_overcommit_ns");
const DEADLINE_MISSES: ControlKey = ControlKey::of("deadline_misses");

/// Blanks between two columns.
const GAP: usize = 1;
/// Longest name for which other columns are left out.
const NAME: usize = 24;
/// Replaces the part of a name that is left out.
const CUT: char = '…';

/// A column of the table.
struct ColumnKind {
    heading: &'static str,
    /// Where there is no room for all columns, the one with the highest number is left out first, and one with 0
    /// never.
    expendable: u8,
    cell: fn(&VcpuRow) -> String,
}

static KINDS: [ColumnKind; 14] = [
    kind("vCPU", 0, |row| row.vcpu.name()),
    kind("state", 0, state),
    kind("cpu", 4, |row| {
        row.vcpu.cpu.map_or("-".to_owned(), |cpu| cpu.to_string())
    }),
    kind("waits for", 7, waits_for),
    kind(Column::Ran.heading(), 0, |row| percent(row.ran)),
    kind(Column::Charged.heading(), 2, |row| percent(row.charged)),
    kind(Column::Donated.heading(), 8, |row| percent(row.donated)),
    kind("%recv", 9, |row| percent(row.received)),
    kind(Column::Waited.heading(), 1, |row| percent(row.waited)),
    kind("budget", 5, budget),
    kind("proxied", 10, |row| {
        row.vcpu.counters.get(PROXIED).to_string()
    }),
    kind("%deliv", 6, delivered),
    kind("lost", 11, lost),
    kind("misses", 3, |row| {
        row.vcpu.counters.get(DEADLINE_MISSES).to_string()
    }),
];

const fn kind(heading: &'static str, expendable: u8, cell: fn(&VcpuRow) -> String) -> ColumnKind {
    ColumnKind {
        heading,
        expendable,
        cell,
    }
}

/// What the vCPU does; of one that runs as a suspect, that.
fn state(row: &VcpuRow) -> String {
    match row.is_suspect {
        true => "suspect".to_owned(),
        false => row.vcpu.state.clone(),
    }
}

/// The vCPU for which it waits or which it suspects, or that it spins for one that is not known.
fn waits_for(row: &VcpuRow) -> String {
    let vcpu = &row.vcpu;
    match &vcpu.waits_for {
        Some(suspect) if vcpu.waits_for_suspect => format!("{suspect} (suspected)"),
        Some(holder) => holder.clone(),
        None if vcpu.spins => "spins".to_owned(),
        None => "-".to_owned(),
    }
}

fn percent(value: f64) -> String {
    format!("{value:.1}")
}

/// What it got by the deadlines, of the promised time that it demanded, without the budget at hand.
fn delivered(row: &VcpuRow) -> String {
    let of = |key| row.vcpu.counters.get(key);
    let (delivered, lost) = (of(DELIVERED), of(LOST_TO_HOST) + of(LOST_TO_OVERCOMMIT));
    match delivered + lost {
        0 => "-".to_owned(),
        demanded => percent(delivered as f64 * 100.0 / demanded as f64),
    }
}

/// What was lost to the host and to overcommit.
fn lost(row: &VcpuRow) -> String {
    let of = |key| row.vcpu.counters.get(key);
    match of(PROMISED) {
        0 => "-".to_owned(),
        _ => format!(
            "{} host, {} overcommit",
            readable_ns(of(LOST_TO_HOST)),
            readable_ns(of(LOST_TO_OVERCOMMIT))
        ),
    }
}

fn budget(row: &VcpuRow) -> String {
    let vcpu = &row.vcpu;
    let in_force = vcpu.reduced_to.as_ref().or(vcpu.reservation.as_ref());
    match (vcpu.budget_ns, in_force) {
        (Some(left), Some(reservation)) => {
            // Whole microseconds are precise enough for a reader.
            let ms = left as f64 / 1e6;
            format!("{ms:.3}ms of {reservation}")
        }
        _ => "-".to_owned(),
    }
}

/// The table as it is shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TableLayout {
    /// Headings. The column by which rows are ordered has a mark.
    pub headings: Vec<String>,
    /// Width of each column.
    pub widths: Vec<u16>,
    /// A line for each row.
    pub lines: Vec<Vec<String>>,
    /// How many columns are left out for want of room.
    pub left_out: usize,
}

/// A column with its heading and its cells.
struct FilledColumn {
    kind: &'static ColumnKind,
    heading: String,
    cells: Vec<String>,
}

impl FilledColumn {
    fn new(kind: &'static ColumnKind, rows: &[VcpuRow], sort: Column) -> Self {
        let mark = if kind.heading == sort.heading() {
            "*"
        } else {
            ""
        };
        Self {
            kind,
            heading: format!("{}{mark}", kind.heading),
            cells: rows.iter().map(kind.cell).collect(),
        }
    }

    fn width(&self) -> usize {
        let longest = self.cells.iter().map(|cell| cell.chars().count()).max();
        longest.unwrap_or(0).max(self.heading.len())
    }
}

/// Lays out `rows` in `room` columns of a terminal. `None` is room for everything.
pub(super) fn lay_out(rows: &[VcpuRow], sort: Column, room: Option<u16>) -> TableLayout {
    let room = room.map_or(usize::MAX, usize::from);
    // All rows are measured, so that columns do not come and go while the user scrolls.
    let filled = |kind| FilledColumn::new(kind, rows, sort);
    let mut columns: Vec<FilledColumn> = KINDS.iter().map(filled).collect();
    leave_out(&mut columns, room);
    let mut widths: Vec<usize> = columns.iter().map(FilledColumn::width).collect();
    let over = total(&widths).saturating_sub(room);
    if over > 0 {
        widths[0] = widths[0].saturating_sub(over).max(columns[0].heading.len());
        for name in &mut columns[0].cells {
            *name = shorten(name, widths[0]).into_owned();
        }
    }
    let line = |row: usize| -> Vec<String> {
        let cells = columns.iter().map(|column| column.cells[row].clone());
        cells.collect()
    };
    TableLayout {
        lines: (0..rows.len()).map(line).collect(),
        left_out: KINDS.len() - columns.len(),
        headings: columns
            .iter()
            .map(|column| column.heading.clone())
            .collect(),
        widths: widths
            .into_iter()
            .map(|width| u16::try_from(width).unwrap_or(u16::MAX))
            .collect(),
    }
}

/// Removes the most expendable columns until the others fit into `room`, or none is expendable.
fn leave_out(columns: &mut Vec<FilledColumn>, room: usize) {
    while needs(columns) > room {
        let last = columns
            .iter()
            .enumerate()
            .filter(|(_, column)| column.kind.expendable > 0)
            .max_by_key(|(_, column)| column.kind.expendable);
        let Some((place, _)) = last else { return };
        columns.remove(place);
    }
}

/// Width of columns of `widths`, with the gaps between them.
fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}

/// Width of all columns, where a long name counts as [`NAME`].
fn needs(columns: &[FilledColumn]) -> usize {
    let width = |column: &FilledColumn| match column.kind.heading == KINDS[0].heading {
        true => column.width().min(NAME),
        false => column.width(),
    };
    total(&columns.iter().map(width).collect::<Vec<_>>())
}

/// `guest/index` in `width` characters. Of a long name the beginning is kept, as far as there is room before the
/// index.
fn shorten(name: &str, width: usize) -> Cow<'_, str> {
    if name.chars().count() <= width {
        return Cow::Borrowed(name);
    }
    let (guest, index) = name.rsplit_once('/').unwrap_or(("", name));
    let room = width.saturating_sub(index.len() + 2);
    let begin: String = guest.chars().take(room).collect();
    Cow::Owned(format!("{begin}{CUT}/{index}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_observe::control::snapshot::VcpuSnapshot;

    fn row(guest: &str, index: u32) -> VcpuRow {
        VcpuRow {
            vcpu: VcpuSnapshot {
                guest: guest.to_owned(),
                index,
                state: "throttled".to_owned(),
                waits_for: Some(format!("{guest}/0")),
                reservation: Some("5ms/20ms,hard".to_owned()),
                budget_ns: Some(-1_234_000),
                ..VcpuSnapshot::default()
            },
            is_suspect: false,
            ran: 100.0,
            charged: 99.9,
            donated: 0.0,
            received: 0.1,
            waited: 12.3,
        }
    }

    fn rows(guest: &str) -> Vec<VcpuRow> {
        (0..12).map(|index| row(guest, index)).collect()
    }

    fn whole_width(laid: &TableLayout) -> usize {
        total(
            &laid
                .widths
                .iter()
                .copied()
                .map(usize::from)
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn a_guess_is_told_from_what_a_guest_has_published() {
        let mut row = row("db", 1);
        assert_eq!(waits_for(&row), "db/0");
        row.vcpu.waits_for_suspect = true;
        assert_eq!(waits_for(&row), "db/0 (suspected)");
        row.vcpu.waits_for = None;
        assert_eq!(waits_for(&row), "-");
        row.vcpu.spins = true;
        assert_eq!(waits_for(&row), "spins");
        assert_eq!(state(&row), "throttled");
        row.is_suspect = true;
        assert_eq!(state(&row), "suspect");
    }

    #[test]
    fn at_80_columns_every_vcpu_has_its_whole_name_and_state() {
        let laid = lay_out(&rows("web"), Column::Ran, Some(80));
        assert!(whole_width(&laid) <= 80, "{laid:?}");
        for (index, line) in laid.lines.iter().enumerate() {
            assert_eq!(line[..2], [format!("web/{index}"), "throttled".to_owned()]);
        }
        for heading in ["%run*", "%wait", "budget", "misses"] {
            assert!(laid.headings.iter().any(|h| h == heading), "{laid:?}");
        }
        assert_eq!(laid.left_out, KINDS.len() - laid.headings.len());
    }

    #[test]
    fn no_cell_is_cut_but_a_name_and_that_keeps_its_index() {
        for room in 0..200 {
            let laid = lay_out(
                &rows("a-guest-with-a-rather-long-name"),
                Column::Name,
                Some(room),
            );
            for (index, line) in laid.lines.iter().enumerate() {
                assert!(line[0].ends_with(&format!("/{index}")), "{room}: {line:?}");
                let fits =
                    |(cell, width): (&String, &u16)| cell.chars().count() <= usize::from(*width);
                assert!(
                    line.iter().zip(&laid.widths).all(fits) || room < 20,
                    "{room}: {laid:?}"
                );
            }
            assert!(
                whole_width(&laid) <= usize::from(room) || room < 24,
                "{room}: {laid:?}"
            );
        }
    }

    #[test]
    fn without_a_limit_all_is_there() {
        let name = "a-guest-with-a-rather-long-name-that-goes-on";
        let laid = lay_out(&rows(name), Column::Name, None);
        assert_eq!((laid.left_out, laid.headings.len()), (0, KINDS.len()));
        assert_eq!(laid.lines[11][0], format!("{name}/11"));
    }
}
