//! The columns of the table: as wide as what stands in them, and as many as fit.

use std::borrow::Cow;

use super::app::{Column, Row};

/// Blanks between two columns.
const GAP: usize = 1;
/// Widest name that is shown whole where columns would have to go for it.
const NAME: usize = 24;
/// What stands for the part of a name that is left out.
const CUT: char = '…';

/// A column: its heading, how soon it goes where there is no room for all (the highest first, 0 never),
/// and what stands in it.
struct Kind {
    heading: &'static str,
    goes: u8,
    cell: fn(&Row) -> String,
}

const KINDS: [Kind; 12] = [
    kind("vCPU", 0, |row| row.vcpu.name()),
    kind("state", 0, |row| row.vcpu.state.clone()),
    kind("cpu", 4, |row| {
        row.vcpu.cpu.map_or("-".to_owned(), |cpu| cpu.to_string())
    }),
    kind("waits for", 6, |row| {
        row.vcpu.waits_for.clone().unwrap_or("-".to_owned())
    }),
    kind(Column::Ran.heading(), 0, |row| percent(row.ran)),
    kind(Column::Charged.heading(), 2, |row| percent(row.charged)),
    kind(Column::Donated.heading(), 7, |row| percent(row.donated)),
    kind("%recv", 8, |row| percent(row.received)),
    kind(Column::Waited.heading(), 1, |row| percent(row.waited)),
    kind("budget", 5, budget),
    kind("proxied", 9, |row| row.vcpu.proxied.to_string()),
    kind("misses", 3, |row| row.vcpu.deadline_misses.to_string()),
];

const fn kind(heading: &'static str, goes: u8, cell: fn(&Row) -> String) -> Kind {
    Kind {
        heading,
        goes,
        cell,
    }
}

fn percent(value: f64) -> String {
    format!("{value:.1}")
}

fn budget(row: &Row) -> String {
    let vcpu = &row.vcpu;
    let in_force = vcpu.reduced_to.as_ref().or(vcpu.reservation.as_ref());
    match (vcpu.budget_ns, in_force) {
        (Some(left), Some(reservation)) => {
            // Whole microseconds are enough to look at.
            let ms = left as f64 / 1e6;
            format!("{ms:.3}ms of {reservation}")
        }
        _ => "-".to_owned(),
    }
}

/// The table as it is shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Laid {
    /// Headings; that of `sort` has a mark.
    pub headings: Vec<String>,
    /// Width of each column.
    pub widths: Vec<u16>,
    /// A line for each row.
    pub lines: Vec<Vec<String>>,
    /// Columns that are left out for want of room.
    pub left_out: usize,
}

/// Lays `rows` out in `room` columns of a terminal; everything without a limit.
pub(super) fn lay_out(rows: &[Row], sort: Column, room: Option<u16>) -> Laid {
    let room = room.map_or(usize::MAX, usize::from);
    let heading = |kind: &Kind| {
        let mark = if kind.heading == sort.heading() {
            "*"
        } else {
            ""
        };
        format!("{}{mark}", kind.heading)
    };
    // All are measured, so that columns do not come and go while rows are scrolled.
    let mut columns: Vec<(&Kind, String, Vec<String>)> = KINDS
        .iter()
        .map(|kind| (kind, heading(kind), rows.iter().map(kind.cell).collect()))
        .collect();
    while needs(&columns) > room {
        let last = columns
            .iter()
            .enumerate()
            .filter(|(_, (kind, ..))| kind.goes > 0)
            .max_by_key(|(_, (kind, ..))| kind.goes);
        let Some((place, _)) = last else { break };
        columns.remove(place);
    }
    let left_out = KINDS.len() - columns.len();
    let mut widths: Vec<usize> = columns.iter().map(width).collect();
    let all = widths.iter().sum::<usize>() + GAP * (widths.len() - 1);
    let over = all.saturating_sub(room);
    if over > 0 {
        widths[0] = widths[0].saturating_sub(over).max(columns[0].1.len());
        for name in &mut columns[0].2 {
            *name = shorten(name, widths[0]).into_owned();
        }
    }
    let lines =
        (0..rows.len()).map(|row| columns.iter().map(move |(.., cells)| cells[row].clone()));
    Laid {
        lines: lines.map(Iterator::collect).collect(),
        headings: columns
            .iter()
            .map(|(_, heading, _)| heading.clone())
            .collect(),
        widths: widths
            .into_iter()
            .map(|width| u16::try_from(width).unwrap_or(u16::MAX))
            .collect(),
        left_out,
    }
}

/// Width of a column.
fn width((_, heading, cells): &(&Kind, String, Vec<String>)) -> usize {
    let longest = cells.iter().map(|cell| cell.chars().count()).max();
    longest.unwrap_or(0).max(heading.len())
}

/// Width of all, of which a long name takes no more than [`NAME`].
fn needs(columns: &[(&Kind, String, Vec<String>)]) -> usize {
    let widths = columns.iter().map(|column| match column.0.goes {
        0 if column.0.heading == KINDS[0].heading => width(column).min(NAME),
        _ => width(column),
    });
    widths.sum::<usize>() + GAP * columns.len().saturating_sub(1)
}

/// `guest/index` in `width` characters: of a long name the beginning goes on as far as there is room
/// before the index.
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
    use baton_observe::control::snapshot::Vcpu;

    fn row(guest: &str, index: u32) -> Row {
        Row {
            vcpu: Vcpu {
                guest: guest.to_owned(),
                index,
                state: "throttled".to_owned(),
                waits_for: Some(format!("{guest}/0")),
                reservation: Some("5ms/20ms,hard".to_owned()),
                budget_ns: Some(-1_234_000),
                ..Vcpu::default()
            },
            ran: 100.0,
            charged: 99.9,
            donated: 0.0,
            received: 0.1,
            waited: 12.3,
        }
    }

    fn rows(guest: &str) -> Vec<Row> {
        (0..12).map(|index| row(guest, index)).collect()
    }

    fn total(laid: &Laid) -> usize {
        let widths: usize = laid.widths.iter().map(|width| usize::from(*width)).sum();
        widths + GAP * (laid.widths.len() - 1)
    }

    #[test]
    fn at_80_columns_every_vcpu_has_its_whole_name_and_state() {
        let laid = lay_out(&rows("web"), Column::Ran, Some(80));
        assert!(total(&laid) <= 80, "{laid:?}");
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
                total(&laid) <= usize::from(room) || room < 24,
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
