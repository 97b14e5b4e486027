//! Drawing the view: on a terminal, or as plain text.

use std::fmt::Write;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use super::app::App;
use super::columns::{TableLayout, lay_out};
use super::cpus::{self, CpuLine};
use super::hints;

/// Draws `app` on the whole terminal.
pub(super) fn draw(frame: &mut Frame, app: &App) {
    let area = frame.area();
    let lines = cpus::lines(&app.now().cpus);
    // The table gets the rest.
    let room = lines.len().min(usize::from(area.height / 2));
    let head_lines = head_lines(app);
    let [head, cpus, table, foot] = Layout::vertical([
        Constraint::Length(head_lines.len() as u16),
        Constraint::Length(room as u16 + 1),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(area);
    let head_lines: Vec<Line> = head_lines.into_iter().map(Line::from).collect();
    frame.render_widget(Paragraph::new(head_lines).bold(), head);
    draw_cpus(frame, cpus, cpus::window(lines, app.cpu_scroll, room));
    let left_out = draw_table(frame, table, app);
    let prompt = match left_out {
        0 => app.prompt(),
        hidden => format!("{}  ({hidden} columns hidden)", app.prompt()),
    };
    frame.render_widget(Line::from(prompt).dim(), foot);
}

fn draw_cpus(frame: &mut Frame, area: Rect, lines: Vec<CpuLine>) {
    let lines: Vec<Line> = lines
        .into_iter()
        .map(|line| match line.proxied {
            true => Line::from(line.text).fg(Color::Green),
            false => Line::from(line.text),
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), area);
}

/// Draws the table of vCPUs. Returns how many columns are left out for want of room.
fn draw_table(frame: &mut Frame, area: Rect, app: &App) -> usize {
    let rows = app.rows();
    let TableLayout {
        headings,
        widths,
        lines,
        left_out,
    } = lay_out(&rows, app.sort(), Some(frame.area().width));
    let shown = rows.iter().zip(lines).skip(app.scroll).map(|(row, cells)| {
        Row::new(cells.into_iter().map(Cell::from)).style(style(&row.vcpu.state))
    });
    let header = Row::new(headings.into_iter().map(Cell::from))
        .style(Style::new().add_modifier(Modifier::REVERSED));
    let widths = widths.into_iter().map(Constraint::Length);
    frame.render_widget(Table::new(shown, widths).header(header), area);
    left_out
}

/// `app` as lines of text.
pub(super) fn plain(app: &App) -> String {
    let mut text = String::new();
    for line in head_lines(app) {
        text.push_str(&line);
        text.push('\n');
    }
    for cpu in &app.now().cpus {
        text.push_str(&cpus::line(cpu).text);
        text.push('\n');
    }
    let laid = lay_out(&app.rows(), app.sort(), None);
    for line in std::iter::once(&laid.headings).chain(&laid.lines) {
        let mut row = String::new();
        for (cell, width) in line.iter().zip(&laid.widths) {
            // Writing to a string does not fail.
            let _ = write!(row, "{cell:width$} ", width = usize::from(*width));
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

/// The lines above all others.
fn head_lines(app: &App) -> Vec<String> {
    let mut lines = vec![title(app)];
    lines.extend(hints::line(&app.now().guests));
    lines
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

fn style(state: &str) -> Style {
    match state {
        "running" => Style::new().add_modifier(Modifier::BOLD),
        "carrying" => Style::new().fg(Color::Green),
        "throttled" => Style::new().fg(Color::Red),
        "halted" | "gone" => Style::new().add_modifier(Modifier::DIM),
        _ => Style::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_observe::control::snapshot::{
        CpuSnapshot, GuestSnapshot, PoolSnapshot, VcpuSnapshot,
    };
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn app() -> App {
        let vcpu = |index, state: &str| VcpuSnapshot {
            guest: "db".to_owned(),
            index,
            state: state.to_owned(),
            waits_for: (index == 1).then(|| "db/0".to_owned()),
            ..VcpuSnapshot::default()
        };
        App::new(PoolSnapshot {
            pid: 7,
            proxy: true,
            cpus: vec![CpuSnapshot {
                run: Some("db/0".to_owned()),
                donor: Some("db/1".to_owned()),
                lock: Some(0x1000),
                ..CpuSnapshot::default()
            }],
            vcpus: vec![vcpu(0, "running"), vcpu(1, "carrying")],
            ..PoolSnapshot::default()
        })
    }

    #[test]
    fn the_view_shows_which_vcpu_runs_on_whose_budget() {
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
    fn at_80_columns_no_two_vcpus_look_the_same_and_the_number_of_hidden_columns_is_shown() {
        let vcpu = |index| VcpuSnapshot {
            guest: "web".to_owned(),
            index,
            state: "throttled".to_owned(),
            reservation: Some("5ms/20ms,hard".to_owned()),
            budget_ns: Some(5_000_000),
            waits_for: Some("web/0".to_owned()),
            ..VcpuSnapshot::default()
        };
        let app = App::new(PoolSnapshot {
            cpus: (0..64)
                .map(|cpu| CpuSnapshot {
                    cpu,
                    ..CpuSnapshot::default()
                })
                .collect(),
            vcpus: (0..4).map(vcpu).collect(),
            ..PoolSnapshot::default()
        });
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("backend");
        terminal.draw(|frame| draw(frame, &app)).expect("draws");
        let screen = terminal.backend().to_string();
        for index in 0..4 {
            let row = format!("web/{index} throttled");
            assert!(screen.contains(&row), "{row} in {screen}");
        }
        for part in ["idle: 0-63", "columns hidden", "5.000ms of 5ms/20ms,hard"] {
            assert!(screen.contains(part), "{part} in {screen}");
        }
    }

    #[test]
    fn the_view_shows_who_is_suspected_and_carried_and_where_hints_come_from() {
        let mut snapshot = app().now().clone();
        snapshot.guests = vec![GuestSnapshot {
            name: "db".to_owned(),
            hints: "inferred (preempt count)".to_owned(),
        }];
        (snapshot.cpus[0].suspect, snapshot.cpus[0].lock) = (true, None);
        snapshot.vcpus[1].waits_for_suspect = true;
        let app = App::new(snapshot);
        let mut terminal = Terminal::new(TestBackend::new(80, 12)).expect("backend");
        terminal.draw(|frame| draw(frame, &app)).expect("draws");
        for text in [terminal.backend().to_string(), plain(&app)] {
            for part in [
                "hints: inferred (preempt count)",
                "db/0 on the budget of db/1, which suspects that it holds a lock",
                "db/0  suspect ",
                "db/0 (suspected)",
            ] {
                assert!(text.contains(part), "{part} in {text}");
            }
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
