//! What is shown, and what the keys do. No terminal is needed for that.

use baton_observe::control::snapshot::{PoolSnapshot, VcpuSnapshot};
use baton_observe::counters::ControlKey;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

const RAN: ControlKey = ControlKey::of("ran_ns");
const CHARGED: ControlKey = ControlKey::of("charged_ns");
const DONATED: ControlKey = ControlKey::of("donated_ns");
const RECEIVED: ControlKey = ControlKey::of("received_ns");
const WAITED: ControlKey = ControlKey::of("waited_ns");

/// Columns by which rows can be ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Guest and index.
    Name,
    /// Share of a CPU that it used.
    Ran,
    /// Share of a CPU that was charged to it.
    Charged,
    /// Share of a CPU that other vCPUs used on its budget.
    Donated,
    /// Share of the time in which it waited for a CPU.
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

/// What follows a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterKey {
    /// The view goes on.
    Stay,
    /// The view is stopped, as a shell stops its jobs.
    Suspend,
    /// The view ends.
    Quit,
}

/// One row: a vCPU, and what it did between the last two snapshots, in percent of one CPU.
#[derive(Clone, Debug)]
pub struct VcpuRow {
    /// The vCPU as it is now.
    pub vcpu: VcpuSnapshot,
    /// Whether it runs on another vCPU's budget only because it is suspected to hold a lock.
    pub is_suspect: bool,
    /// Time that it ran.
    pub ran: f64,
    /// Time that it was charged.
    pub charged: f64,
    /// Time that other vCPUs ran on its budget.
    pub donated: f64,
    /// Time that it ran on other budgets.
    pub received: f64,
    /// Time that it waited for a CPU.
    pub waited: f64,
}

/// The state of the view.
#[derive(Debug)]
pub struct App {
    before: PoolSnapshot,
    now: PoolSnapshot,
    sort: Column,
    reversed: bool,
    paused: bool,
    filter: String,
    /// Whether the filter is being typed.
    typing: bool,
    /// Rows that are scrolled out above.
    pub(super) scroll: usize,
    /// Lines about host CPUs that are scrolled out above.
    pub(super) cpu_scroll: usize,
}

impl App {
    /// A view of `snapshot`. Rates come with the next one.
    #[must_use]
    pub fn new(snapshot: PoolSnapshot) -> Self {
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

    /// Shows the next snapshot, unless the view is paused.
    pub fn update(&mut self, snapshot: PoolSnapshot) {
        if !self.paused {
            self.before = std::mem::replace(&mut self.now, snapshot);
        }
    }

    /// The last snapshot.
    #[must_use]
    pub fn now(&self) -> &PoolSnapshot {
        &self.now
    }

    /// The column by which rows are ordered.
    #[must_use]
    pub fn sort(&self) -> Column {
        self.sort
    }

    /// The line at the bottom: what is being typed, or the keys.
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

    /// Handles a key.
    pub fn press(&mut self, key: KeyEvent) -> AfterKey {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            match key.code {
                KeyCode::Char('c') => return AfterKey::Quit,
                KeyCode::Char('z') => return AfterKey::Suspend,
                _ => {}
            }
        }
        if self.typing {
            self.type_filter(key.code);
            return AfterKey::Stay;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return AfterKey::Quit,
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
        AfterKey::Stay
    }

    /// Handles a key while the filter is being typed.
    fn type_filter(&mut self, key: KeyCode) {
        match key {
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
    }

    /// A vCPU as it was in the last two snapshots.
    fn row(&self, now: &VcpuSnapshot, before: &VcpuSnapshot) -> VcpuRow {
        let wall = self.now.now_ns.saturating_sub(self.before.now_ns);
        let share = |key| {
            let passed = now
                .counters
                .get(key)
                .saturating_sub(before.counters.get(key));
            match wall {
                0 => 0.0,
                wall => passed as f64 * 100.0 / wall as f64,
            }
        };
        let name = now.name();
        let mut cpus = self.now.cpus.iter();
        VcpuRow {
            is_suspect: cpus.any(|cpu| cpu.suspect && cpu.run.as_ref() == Some(&name)),
            ran: share(RAN),
            charged: share(CHARGED),
            donated: share(DONATED),
            received: share(RECEIVED),
            waited: share(WAITED),
            vcpu: now.clone(),
        }
    }

    /// The rows to show, in order.
    #[must_use]
    pub fn rows(&self) -> Vec<VcpuRow> {
        // vCPUs keep their order for the whole run.
        let mut rows: Vec<VcpuRow> = self
            .now
            .vcpus
            .iter()
            .zip(&self.before.vcpus)
            .filter(|(now, _)| now.guest.contains(&self.filter))
            .map(|(now, before)| self.row(now, before))
            .collect();
        let key = |row: &VcpuRow| match self.sort {
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
    use baton_observe::control::snapshot::CpuSnapshot;
    use baton_observe::counters::ControlValues;

    fn snapshot(now_ns: u64, ran: [u64; 3]) -> PoolSnapshot {
        let names = [("db", 0), ("db", 1), ("batch", 0)];
        PoolSnapshot {
            now_ns,
            vcpus: names
                .into_iter()
                .zip(ran)
                .map(|((guest, index), ran_ns)| VcpuSnapshot {
                    guest: guest.to_owned(),
                    index,
                    counters: ControlValues::default().with(RAN, ran_ns),
                    ..VcpuSnapshot::default()
                })
                .collect(),
            ..PoolSnapshot::default()
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
            assert_eq!(app.press(code.into()), AfterKey::Stay);
        }
    }

    #[test]
    fn rates_are_shares_of_the_time_between_two_snapshots() {
        assert!((app().rows()[1].ran - 90.0).abs() < 1e-9);
        assert!((App::new(snapshot(0, [1, 1, 1])).rows()[0].ran).abs() < 1e-9);
    }

    #[test]
    fn a_vcpu_is_a_suspect_while_a_host_cpu_runs_it_as_one() {
        let on_cpu = |suspect| {
            let mut snapshot = snapshot(0, [0; 3]);
            snapshot.cpus = vec![CpuSnapshot {
                run: Some("db/1".to_owned()),
                donor: Some("db/0".to_owned()),
                suspect,
                ..CpuSnapshot::default()
            }];
            let rows = App::new(snapshot).rows();
            rows.iter().map(|row| row.is_suspect).collect::<Vec<_>>()
        };
        assert_eq!(on_cpu(true), [false, true, false]);
        assert_eq!(on_cpu(false), [false; 3]);
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
        assert_eq!(app.press(KeyCode::Esc.into()), AfterKey::Stay);
        assert_eq!(names(&app).len(), 3);
        assert_eq!(app.press(KeyCode::Char('q').into()), AfterKey::Quit);
    }

    #[test]
    fn a_paused_view_stands_still() {
        let mut app = app();
        press(&mut app, "p");
        app.update(snapshot(2000, [1000; 3]));
        assert_eq!(app.now().now_ns, 1000);
    }

    #[test]
    fn ctrl_z_stops_the_view_and_ctrl_c_ends_it_also_while_a_filter_is_typed() {
        let mut app = app();
        press(&mut app, "/ba");
        let with_ctrl = |key| KeyEvent::new(KeyCode::Char(key), KeyModifiers::CONTROL);
        assert_eq!(app.press(with_ctrl('z')), AfterKey::Suspend);
        assert_eq!(app.press(with_ctrl('c')), AfterKey::Quit);
    }

    #[test]
    fn scrolling_ends_at_the_last_row() {
        let mut app = app();
        for _ in 0..9 {
            assert_eq!(app.press(KeyCode::PageDown.into()), AfterKey::Stay);
        }
        assert_eq!(app.scroll, 2);
    }
}
