//! What is shown, and what the keys do. Knows no terminal.

use baton_observe::control::snapshot::{Snapshot, Vcpu};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Columns by which rows can be ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Guest and index.
    Name,
    /// Share of a CPU that it ran.
    Ran,
    /// Share that it was charged.
    Charged,
    /// Share of its charge in which others ran.
    Donated,
    /// Share of time in which it waited for a CPU.
    Waited,
}

impl Column {
    const ALL: [Self; 5] = [
        Self::Name,
        Self::Ran,
        Self::Charged,
        Self::Donated,
        Self::Waited,
    ];

    /// Its heading.
    #[must_use]
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Name => "vCPU",
            Self::Ran => "%run",
            Self::Charged => "%chrg",
            Self::Donated => "%don",
            Self::Waited => "%wait",
        }
    }
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Go on.
    Stay,
    /// The user has seen enough.
    Quit,
}

/// One row: a vCPU, and what it did between the last two snapshots, in percent of one CPU.
#[derive(Clone, Debug)]
pub struct Row {
    /// The vCPU as it is now.
    pub vcpu: Vcpu,
    /// Ran.
    pub ran: f64,
    /// Was charged.
    pub charged: f64,
    /// Paid while others ran.
    pub donated: f64,
    /// Ran while others paid.
    pub received: f64,
    /// Waited for a CPU.
    pub waited: f64,
}

/// The state of the view.
#[derive(Debug)]
pub struct App {
    before: Snapshot,
    now: Snapshot,
    sort: Column,
    reversed: bool,
    paused: bool,
    filter: String,
    /// The filter is being typed.
    typing: bool,
    /// Rows above the window.
    pub(super) scroll: usize,
    /// Lines about host CPUs above theirs.
    pub(super) cpu_scroll: usize,
}

impl App {
    /// A view of `snapshot`; rates come with the next.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            before: snapshot.clone(),
            now: snapshot,
            sort: Column::Name,
            reversed: false,
            paused: false,
            filter: String::new(),
            typing: false,
            scroll: 0,
            cpu_scroll: 0,
        }
    }

    /// The next snapshot, unless the view is paused.
    pub fn update(&mut self, snapshot: Snapshot) {
        if !self.paused {
            self.before = std::mem::replace(&mut self.now, snapshot);
        }
    }

    /// What the last snapshot says.
    #[must_use]
    pub fn now(&self) -> &Snapshot {
        &self.now
    }

    /// By what rows are ordered.
    #[must_use]
    pub fn sort(&self) -> Column {
        self.sort
    }

    /// The line below: what is typed, or what there is to press.
    #[must_use]
    pub fn prompt(&self) -> String {
        if self.typing {
            return format!("guest: {}_", self.filter);
        }
        let mut text = "q quit  s sort  r reverse  / filter  p pause  arrows scroll".to_owned();
        if !self.filter.is_empty() {
            text += &format!("  [guest: {}]", self.filter);
        }
        if self.paused {
            text += "  [paused]";
        }
        text
    }

    /// A key was pressed.
    pub fn press(&mut self, key: KeyEvent) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Next::Quit;
        }
        if self.typing {
            match key.code {
                KeyCode::Enter => self.typing = false,
                KeyCode::Esc => {
                    self.typing = false;
                    self.filter.clear();
                }
                KeyCode::Backspace => drop(self.filter.pop()),
                KeyCode::Char(c) => self.filter.push(c),
                _ => {}
            }
            self.scroll = 0;
            return Next::Stay;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Next::Quit,
            KeyCode::Char('s') => {
                let place = Column::ALL.iter().position(|column| *column == self.sort);
                self.sort = Column::ALL[place.map_or(0, |at| at + 1) % Column::ALL.len()];
            }
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('p') => self.paused = !self.paused,
            KeyCode::Char('/') => {
                self.typing = true;
                self.filter.clear();
            }
            KeyCode::Down => self.scroll = self.scroll.saturating_add(1),
            KeyCode::Up => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::Right => self.cpu_scroll = self.cpu_scroll.saturating_add(1),
            KeyCode::Left => self.cpu_scroll = self.cpu_scroll.saturating_sub(1),
            KeyCode::PageDown => self.scroll = self.scroll.saturating_add(10),
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(10),
            _ => {}
        }
        // Not beyond the last row, or the last host CPU.
        self.cpu_scroll = self.cpu_scroll.min(self.now.cpus.len());
        self.scroll = self.scroll.min(self.rows().len().saturating_sub(1));
        Next::Stay
    }

    /// The rows to show, in order.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let wall = self.now.now_ns.saturating_sub(self.before.now_ns);
        let share = |now: u64, before: u64| {
            if wall == 0 {
                0.0
            } else {
                now.saturating_sub(before) as f64 * 100.0 / wall as f64
            }
        };
        // vCPUs keep their places for the whole run.
        let mut rows: Vec<Row> = self
            .now
            .vcpus
            .iter()
            .zip(&self.before.vcpus)
            .filter(|(now, _)| now.guest.contains(&self.filter))
            .map(|(now, before)| Row {
                ran: share(now.ran_ns, before.ran_ns),
                charged: share(now.charged_ns, before.charged_ns),
                donated: share(now.donated_ns, before.donated_ns),
                received: share(now.received_ns, before.received_ns),
                waited: share(now.waited_ns, before.waited_ns),
                vcpu: now.clone(),
            })
            .collect();
        let key = |row: &Row| match self.sort {
            Column::Name => 0.0,
            Column::Ran => row.ran,
            Column::Charged => row.charged,
            Column::Donated => row.donated,
            Column::Waited => row.waited,
        };
        // The largest first; equal ones, and names, stay in order.
        rows.sort_by(|a, b| key(b).total_cmp(&key(a)));
        if self.reversed {
            rows.reverse();
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(now_ns: u64, ran: [u64; 3]) -> Snapshot {
        let names = [("db", 0), ("db", 1), ("batch", 0)];
        Snapshot {
            now_ns,
            vcpus: names
                .into_iter()
                .zip(ran)
                .map(|((guest, index), ran_ns)| Vcpu {
                    guest: guest.to_owned(),
                    index,
                    ran_ns,
                    ..Vcpu::default()
                })
                .collect(),
            ..Snapshot::default()
        }
    }

    fn app() -> App {
        let mut app = App::new(snapshot(0, [0; 3]));
        app.update(snapshot(1000, [100, 900, 500]));
        app
    }

    fn names(app: &App) -> Vec<String> {
        app.rows().iter().map(|row| row.vcpu.name()).collect()
    }

    fn press(app: &mut App, keys: &str) {
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                key => KeyCode::Char(key),
            };
            assert_eq!(app.press(code.into()), Next::Stay);
        }
    }

    #[test]
    fn rates_are_shares_of_the_time_between_two_snapshots() {
        assert!((app().rows()[1].ran - 90.0).abs() < 1e-9);
        assert!((App::new(snapshot(0, [1, 1, 1])).rows()[0].ran).abs() < 1e-9);
    }

    #[test]
    fn sorting_puts_the_busiest_first_and_reversing_last() {
        let mut app = app();
        assert_eq!(names(&app), ["db/0", "db/1", "batch/0"]);
        press(&mut app, "s");
        assert_eq!(names(&app), ["db/1", "batch/0", "db/0"]);
        press(&mut app, "r");
        assert_eq!(names(&app), ["db/0", "batch/0", "db/1"]);
    }

    #[test]
    fn a_filter_leaves_the_guests_that_contain_it_and_takes_q_for_a_letter() {
        let mut app = app();
        press(&mut app, "/bat\n");
        assert_eq!(names(&app), ["batch/0"]);
        press(&mut app, "/q");
        assert!(names(&app).is_empty());
        assert_eq!(app.press(KeyCode::Esc.into()), Next::Stay);
        assert_eq!(names(&app).len(), 3);
        assert_eq!(app.press(KeyCode::Char('q').into()), Next::Quit);
    }

    #[test]
    fn a_paused_view_stands_still() {
        let mut app = app();
        press(&mut app, "p");
        app.update(snapshot(2000, [1000; 3]));
        assert_eq!(app.now().now_ns, 1000);
    }

    #[test]
    fn scrolling_ends_at_the_last_row() {
        let mut app = app();
        for _ in 0..9 {
            assert_eq!(app.press(KeyCode::PageDown.into()), Next::Stay);
        }
        assert_eq!(app.scroll, 2);
    }
}
