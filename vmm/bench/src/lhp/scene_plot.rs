//! A [`Scene`] as SVG: a row for each host CPU and each vCPU, time to the right.

use std::fmt::Write;

use baton_config::units::readable_ns;
use baton_machine::testdev::Section;
use baton_observe::timeline::lanes::{Busy, Span, State};
use vcpu_sched::{Ns, VcpuId};

use super::scene::Scene;
use crate::report::svg::Sheet;

const WIDTH: f64 = 920.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 10.0;
/// Space for the length of the wait above the rows, and for the scale below them.
const TOP: f64 = 22.0;
const BOTTOM: f64 = 22.0;
const ROW: f64 = 34.0;
/// Heights of the bar of what runs, and of the bar of the lock below it.
const BAR: f64 = 16.0;
const LOCK: f64 = 8.0;
/// Bars narrower than this are left out.
const VISIBLE: f64 = 0.1;
/// Width of a letter.
const LETTER: f64 = 6.0;

const HOLDER: &str = "#1a1a1a";
const WAITER: &str = "#e08a1e";

/// The colour and the meaning of each state; halted vCPUs are not drawn.
const STATES: [(State, &str, &str); 5] = [
    (State::Runs, "#3f86c1", "runs on its own budget"),
    (State::Carried, "#0a4a8f", "runs on another's budget"),
    (State::Pays, "#a9cfe9", "its budget carries another"),
    (State::Waits, "#e2e2e2", "wants to run"),
    (State::Throttled, "#d9b8b0", "throttled"),
];

fn color(state: State) -> Option<&'static str> {
    let of = STATES.iter().find(|(other, ..)| *other == state);
    of.map(|(_, color, _)| *color)
}

/// The legend of the colours.
#[must_use]
pub fn legend() -> String {
    let states = STATES.map(|(_, color, meaning)| (color, meaning));
    let lock = [(HOLDER, "has the lock"), (WAITER, "waits for the lock")];
    states
        .into_iter()
        .chain(lock)
        .map(|(color, meaning)| {
            format!("<span class=\"key\" style=\"background:{color}\"></span>{meaning}")
        })
        .collect()
}

/// The drawing; time counts from the start of the wait.
#[must_use]
pub fn plot(scene: &Scene) -> String {
    let rows = scene.lanes.cpus.len() + scene.lanes.vcpus.len();
    let height = TOP + ROW * rows as f64 + BOTTOM;
    let mut drawing = SceneDrawing {
        sheet: Sheet::new(WIDTH, height),
        shown: scene.shown,
        bottom: height - BOTTOM,
    };
    drawing.scale(scene.wait.asked);
    let mut top = TOP;
    for (index, spans) in &scene.lanes.cpus {
        let number = scene.host_cpus.get(*index as usize);
        let label = number.map_or_else(|| format!("#{index}"), |number| format!("CPU {number}"));
        drawing.label(top, &label);
        drawing.cpu_row(top, spans);
        top += ROW;
    }
    for (id, spans) in &scene.lanes.vcpus {
        drawing.label(top, &vcpu(*id));
        for span in merged(spans) {
            drawing.bar(&span, (top, BAR), color(span.what), &[]);
        }
        let own = scene.sections.iter().filter(|(of, _)| of == id);
        own.for_each(|(_, section)| drawing.lock(top, section));
        top += ROW;
    }
    drawing.wait(scene);
    drawing.sheet.finish()
}

fn vcpu(id: VcpuId) -> String {
    format!("vCPU {}", id.0)
}

/// The spans, with neighbours that show the same as one: a vCPU that is picked again at once has run on.
fn merged<T: Copy + PartialEq>(spans: &[Span<T>]) -> Vec<Span<T>> {
    let mut merged: Vec<Span<T>> = Vec::new();
    for span in spans.iter().filter(|span| span.from < span.to) {
        match merged.last_mut() {
            Some(last) if last.what == span.what && last.to == span.from => last.to = span.to,
            _ => merged.push(*span),
        }
    }
    merged
}

/// The drawing of a scene, in the making.
struct SceneDrawing {
    sheet: Sheet,
    /// Start and end of the time that is shown.
    shown: (Ns, Ns),
    /// Lower end of the rows.
    bottom: f64,
}

impl SceneDrawing {
    fn x(&self, at: Ns) -> f64 {
        let (from, to) = self.shown;
        let place = (at.clamp(from, to.max(from)) - from) as f64 / (to.max(from + 1) - from) as f64;
        LEFT + (WIDTH - LEFT - RIGHT) * place
    }

    fn label(&mut self, top: f64, label: &str) {
        self.sheet.add(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT - 8.0,
            top + BAR - 3.0
        ));
    }

    /// A bar for `span` at this height. Its title is the first of `texts`, and the first text that fits stands
    /// in it.
    fn bar<T>(
        &mut self,
        span: &Span<T>,
        (top, height): (f64, f64),
        fill: Option<&str>,
        texts: &[String],
    ) {
        let (left, right) = (self.x(span.from), self.x(span.to));
        let (Some(fill), true) = (fill, right - left >= VISIBLE) else {
            return;
        };
        let length = readable_ns(span.to - span.from);
        let title = texts
            .first()
            .map_or_else(String::new, |text| format!("{text}, "));
        self.sheet.add(format_args!(
            "<path class=\"span\" fill=\"{fill}\" d=\"M{left:.2} {top:.1}H{right:.2}v{height:.1}H{left:.2}z\">\
             <title>{title}{length}</title></path>"
        ));
        let fits = |text: &&String| right - left > LETTER * (text.len() + 1) as f64;
        if let Some(text) = texts.iter().find(fits) {
            self.sheet.add(format_args!(
                "<text class=\"on\" x=\"{:.1}\" y=\"{:.1}\">{text}</text>",
                left + 4.0,
                top + height / 2.0 + 4.0
            ));
        }
    }

    /// The row of a host CPU: what runs there, and on which budget.
    fn cpu_row(&mut self, top: f64, spans: &[Span<Busy>]) {
        for span in merged(spans) {
            let (donor, run) = (span.what.donor, span.what.run);
            let (state, texts) = if donor == run {
                (State::Runs, [vcpu(run), run.0.to_string()])
            } else {
                let long = format!("{} on the budget of {}", vcpu(run), vcpu(donor));
                (State::Carried, [long, format!("{} on {}", run.0, donor.0)])
            };
            self.bar(&span, (top, BAR + LOCK), color(state), &texts);
        }
    }

    /// The lock below the bar of a vCPU: the time for which the vCPU waited for it and held it.
    fn lock(&mut self, top: f64, section: &Section) {
        let place = (top + BAR, LOCK);
        for (from, to, color) in [
            (section.asked, section.got, WAITER),
            (section.got, section.released, HOLDER),
        ] {
            let span = Span { from, to, what: () };
            self.bar(&span, place, Some(color), &[]);
        }
    }

    /// Lines at round times before and after `origin`.
    fn scale(&mut self, origin: Ns) {
        let (from, to) = self.shown;
        let step = step(to.saturating_sub(from));
        let mut path = String::new();
        let before = origin.saturating_sub(from) / step;
        let start = origin.saturating_sub(before * step);
        let times = std::iter::successors(Some(start), |at| at.checked_add(step));
        for at in times.take_while(|at| *at <= to) {
            let x = self.x(at);
            // Writing to a String cannot fail.
            let _ = write!(path, "M{x:.1} {TOP}V{:.1}", self.bottom);
            let label = readable_ns(at.abs_diff(origin));
            let label = label.replace(".00", "").replace(".0", "");
            let sign = if at < origin { "-" } else { "" };
            self.sheet.add(format_args!(
                "<text class=\"faint\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{sign}{label}</text>",
                self.bottom + 14.0
            ));
        }
        self.sheet
            .add(format_args!("<path class=\"grid\" d=\"{path}\"/>"));
    }

    /// Marks the wait that is shown, from its start to its end.
    fn wait(&mut self, scene: &Scene) {
        let (left, right) = (self.x(scene.wait.asked), self.x(scene.wait.got));
        let (top, bottom) = (TOP - 4.0, self.bottom);
        self.sheet.add(format_args!(
            "<path class=\"wait\" d=\"M{left:.1} {bottom:.1}V{top:.1}H{right:.1}V{bottom:.1}\"/>\
             <text x=\"{left:.1}\" y=\"{:.1}\">{} waits for the lock: {}</text>",
            top - 5.0,
            vcpu(scene.waiter),
            readable_ns(scene.wait.wait_ns()),
        ));
    }
}

/// A round time, ns, of which a dozen at most fit into `length`.
fn step(length: Ns) -> Ns {
    const MOST: Ns = 12;
    let decades = std::iter::successors(Some(1u64), |decade| decade.checked_mul(10));
    decades
        .flat_map(|decade| [1, 2, 5].map(|part| decade.saturating_mul(part)))
        .find(|step| length / step <= MOST)
        .unwrap_or(Ns::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lhp::axes::Policy;
    use crate::lhp::scene::tests::example;

    #[test]
    fn rows_show_what_runs_the_holder_and_the_wait() {
        let svg = plot(&example(Policy::Baton));
        for text in [
            ">CPU 3<",
            ">vCPU 0<",
            ">vCPU 1<",
            ">vCPU 1 waits for the lock: 300ns<",
            ">0ns<",
        ] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        let spans = |color: &str| svg.matches(&format!("fill=\"{color}\"")).count();
        // The holder's critical section, and the waiter's short one.
        assert_eq!((spans(WAITER), spans(HOLDER)), (2, 2));
        let runs = color(State::Runs).expect("drawn");
        assert_eq!(spans(runs), 2, "the host CPU's row and the vCPU's");
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn what_lies_outside_the_shown_time_is_cut_off() {
        let mut scene = example(Policy::Baton);
        for shown in [(0, u64::MAX), (150, 151), (300, 300), (400, 10)] {
            scene.shown = shown;
            let svg = plot(&scene);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{shown:?}");
            for path in svg.split(" d=\"M").skip(1) {
                let x = path.split(' ').next().expect("a number");
                let x: f64 = x.parse().unwrap_or(LEFT);
                assert!((LEFT..=WIDTH - RIGHT).contains(&x), "{x}");
            }
        }
    }

    #[test]
    fn moments_between_two_runs_of_a_vcpu_are_not_drawn() {
        let span = |from, to, what| Span { from, to, what };
        let spans = [
            span(1, 5, State::Runs),
            span(5, 5, State::Waits),
            span(5, 9, State::Runs),
            span(9, 12, State::Throttled),
        ];
        assert_eq!(
            merged(&spans),
            [span(1, 9, State::Runs), span(9, 12, State::Throttled)]
        );
    }

    #[test]
    fn steps_of_the_scale_are_round_and_few() {
        assert_eq!(step(0), 1);
        assert_eq!(step(25_000_000), 2_000_000);
        assert_eq!(step(100_000_000), 10_000_000);
        assert!(u64::MAX / step(u64::MAX) <= 12);
    }
}
