//! Drawing the view: on a terminal, or as plain text.

use std::fmt::Write;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row as TableRow, Table};

use super::app::{App, Column, Row};
use crate::control::snapshot::Cpu;

const HEADINGS: [&str; 12] = [
    "vCPU",
    "state",
    "cpu",
    "waits for",
    "%run",
    "%chrg",
    "%don",
    "%recv",
    "%wait",
    "budget",
    "proxied",
    "misses",
];
const WIDTHS: [u16; 12] = [18, 9, 4, 18, 6, 6, 6, 6, 6, 24, 8, 7];

/// Draws `app` on the whole terminal.
pub(super) fn draw(frame: &mut Frame, app: &App) {
    let now = app.now();
    let [head, cpus, table, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(now.cpus.len().min(16) as u16 + 1),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Line::from(title(app)).bold(), head);
    let lines: Vec<Line> = now.cpus.iter().take(16).map(cpu_line).collect();
    frame.render_widget(Paragraph::new(lines), cpus);
    let rows = app.rows();
    let shown = rows
        .iter()
        .skip(app.scroll)
        .map(|row| TableRow::new(cells(row).map(Cell::from)).style(style(&row.vcpu.state)));
    let header = TableRow::new(HEADINGS.map(|heading| {
        let mark = if heading == app.sort().heading() {
            "*"
        } else {
            ""
        };
        Cell::from(format!("{heading}{mark}"))
    }))
    .style(Style::new().add_modifier(Modifier::REVERSED));
    frame.render_widget(
        Table::new(shown, WIDTHS.map(Constraint::Length)).header(header),
        table,
    );
    frame.render_widget(Line::from(app.prompt()).dim(), foot);
}

/// `app` as lines of text.
pub(super) fn plain(app: &App) -> String {
    let mut text = title(app);
    text.push('\n');
    for cpu in &app.now().cpus {
        text.push_str(&cpu_text(cpu));
        text.push('\n');
    }
    let mut line = |cells: &[String]| {
        let mut row = String::new();
        for (cell, width) in cells.iter().zip(WIDTHS) {
            // A string takes all that is written to it.
            let _ = write!(row, "{cell:width$} ", width = usize::from(width));
        }
        text.push_str(row.trim_end());
        text.push('\n');
    };
    line(&HEADINGS.map(str::to_owned));
    for row in app.rows() {
        line(&cells(&row));
    }
    text
}

fn title(app: &App) -> String {
    let now = app.now();
    format!(
        "baton {}  {} vCPUs on {} host CPUs  proxy {}",
        now.pid,
        now.vcpus.len(),
        now.cpus.len(),
        if now.proxy { "on" } else { "off" }
    )
}

fn cpu_text(cpu: &Cpu) -> String {
    let what = match (&cpu.run, &cpu.donor) {
        (None, _) if cpu.away => "away: offline, or not for this process".to_owned(),
        (None, _) => "idle".to_owned(),
        (Some(run), Some(donor)) if run != donor => format!(
            "{run} on the budget of {donor}, which waits for lock {:#x}",
            cpu.lock.unwrap_or_default()
        ),
        (Some(run), _) => run.clone(),
    };
    format!("CPU {:<3} {what}", cpu.cpu)
}

fn cpu_line(cpu: &Cpu) -> Line<'static> {
    let line = Line::from(cpu_text(cpu));
    if cpu.run.is_some() && cpu.run != cpu.donor {
        line.fg(Color::Green)
    } else {
        line
    }
}

fn style(state: &str) -> Style {
    match state {
        "running" => Style::new().add_modifier(Modifier::BOLD),
        "carrying" => Style::new().fg(Color::Green),
        "throttled" => Style::new().fg(Color::Red),
        "halted" | "gone" => Style::new().add_modifier(Modifier::DIM),
        _ => Style::new(),
    }
}

fn cells(row: &Row) -> [String; HEADINGS.len()] {
    let vcpu = &row.vcpu;
    let percent = |value: f64| format!("{value:.1}");
    let in_force = vcpu.reduced_to.as_ref().or(vcpu.reservation.as_ref());
    let budget = match (vcpu.budget_ns, in_force) {
        (Some(left), Some(reservation)) => {
            // Whole microseconds are enough to look at.
            let ms = left as f64 / 1e6;
            format!("{ms:.3}ms of {reservation}")
        }
        _ => "-".to_owned(),
    };
    [
        vcpu.name(),
        vcpu.state.clone(),
        vcpu.cpu.map_or("-".to_owned(), |cpu| cpu.to_string()),
        vcpu.waits_for.clone().unwrap_or("-".to_owned()),
        percent(row.ran),
        percent(row.charged),
        percent(row.donated),
        percent(row.received),
        percent(row.waited),
        budget,
        vcpu.proxied.to_string(),
        vcpu.deadline_misses.to_string(),
    ]
}

// The mark in the heading is found by name.
const _: () = assert!(HEADINGS[4].len() == Column::Ran.heading().len());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::snapshot::{Snapshot, Vcpu};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn app() -> App {
        let vcpu = |index, state: &str| Vcpu {
            guest: "db".to_owned(),
            index,
            state: state.to_owned(),
            waits_for: (index == 1).then(|| "db/0".to_owned()),
            ..Vcpu::default()
        };
        App::new(Snapshot {
            pid: 7,
            proxy: true,
            cpus: vec![Cpu {
                run: Some("db/0".to_owned()),
                donor: Some("db/1".to_owned()),
                lock: Some(0x1000),
                ..Cpu::default()
            }],
            vcpus: vec![vcpu(0, "running"), vcpu(1, "carrying")],
            ..Snapshot::default()
        })
    }

    #[test]
    fn the_view_says_who_runs_on_whose_budget() {
        let mut terminal = Terminal::new(TestBackend::new(130, 12)).expect("backend");
        terminal.draw(|frame| draw(frame, &app())).expect("draws");
        let screen = terminal.backend().to_string();
        for part in [
            "db/0 on the budget of db/1",
            "carrying",
            "q quit",
            "baton 7",
        ] {
            assert!(screen.contains(part), "{part} in {screen}");
        }
    }

    #[test]
    fn a_tiny_terminal_does_no_harm() {
        for (width, height) in [(1, 1), (20, 3), (200, 1)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("backend");
            terminal.draw(|frame| draw(frame, &app())).expect("draws");
        }
    }

    #[test]
    fn plain_text_has_a_line_for_each_vcpu() {
        let text = plain(&app());
        assert_eq!(text.lines().count(), 1 + 1 + 1 + 2);
        assert!(text.contains("db/1"));
    }
}
