//! Keeps the policy's decisions for a timeline at the end of a run: those around the longest time that one
//! vCPU ran on another's budget, or all of a short run.

use std::collections::VecDeque;

use baton_config::Timeline;
use vcpu_sched::{Event, Events, Ns};

/// Most recent events that are kept.
const KEPT: usize = 8192;
/// Most events that are kept of a whole run; later ones are dropped. A second has some thousand.
const KEPT_OF_ALL: usize = 1 << 16;
/// How much is shown before and after the moment, in its own lengths.
const AROUND: Ns = 2;

/// A listener of the policy.
#[derive(Debug, Default)]
pub struct Recorder(Mode);

#[derive(Debug, Default)]
enum Mode {
    /// Records nothing.
    #[default]
    Off,
    /// Records what is around the longest proxied run.
    Longest(Longest),
    /// Records all.
    Whole(Vec<(Ns, Event)>),
}

/// What is around the longest proxied run.
#[derive(Debug, Default)]
struct Longest {
    recent: VecDeque<(Ns, Event)>,
    /// Start and end of the longest proxied run so far, ns.
    run: Option<(Ns, Ns)>,
    /// That run has not been copied to `best` yet, because some of what follows it is still to come.
    copy_is_due: bool,
    best: Vec<(Ns, Event)>,
}

impl Recorder {
    /// A recorder of what `timeline` shows.
    #[must_use]
    pub fn new(timeline: Timeline) -> Self {
        Self(match timeline {
            Timeline::Off => Mode::Off,
            Timeline::LongestCarried => Mode::Longest(Longest::default()),
            // All memory is allocated here, because events come under the pool's lock.
            Timeline::Whole => Mode::Whole(Vec::with_capacity(KEPT_OF_ALL)),
        })
    }

    /// The recorded moment. `None` if no vCPU ran on another's budget, nothing happened, or nothing was to be
    /// recorded.
    pub fn finish(&mut self) -> Option<Moment> {
        match &mut self.0 {
            Mode::Off => None,
            Mode::Longest(longest) => longest.finish(),
            Mode::Whole(events) => whole(std::mem::take(events)),
        }
    }
}

impl Events for Recorder {
    fn event(&mut self, at: Ns, event: Event) {
        match &mut self.0 {
            Mode::Off => {}
            Mode::Longest(longest) => longest.record(at, event),
            Mode::Whole(events) => {
                if events.len() < KEPT_OF_ALL {
                    events.push((at, event));
                }
            }
        }
    }
}

/// A stretch of time, and what happened around it. A waiter's budget carried a holder in it, unless a whole
/// run was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// What the policy decided, in order, with times in ns.
    pub events: Vec<(Ns, Event)>,
    /// When it began, ns.
    pub start: Ns,
    /// When it ended, ns.
    pub end: Ns,
}

fn whole(events: Vec<(Ns, Event)>) -> Option<Moment> {
    let (start, end) = (events.first()?.0, events.last()?.0);
    Some(Moment { events, start, end })
}

impl Longest {
    fn record(&mut self, at: Ns, event: Event) {
        if self.copy_is_due
            && self
                .run
                .is_some_and(|(start, end)| at > around(start, end).1)
        {
            self.copy();
        }
        if self.recent.len() == KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back((at, event));
        if let Event::Stop {
            donor, curr, ran, ..
        } = event
            && donor != curr
            && !self.copy_is_due
            && self.run.is_none_or(|(start, end)| ran > end - start)
        {
            self.run = Some((at.saturating_sub(ran), at));
            self.copy_is_due = true;
        }
    }

    /// Copies what is around the longest run from the recent events.
    fn copy(&mut self) {
        self.copy_is_due = false;
        if let Some((start, end)) = self.run {
            let (from, to) = around(start, end);
            let within = self
                .recent
                .iter()
                .filter(|(at, _)| (from..=to).contains(at));
            self.best = within.copied().collect();
        }
    }

    fn finish(&mut self) -> Option<Moment> {
        if self.copy_is_due {
            self.copy();
        }
        let (start, end) = self.run?;
        Some(Moment {
            events: std::mem::take(&mut self.best),
            start,
            end,
        })
    }
}

/// The stretch around a moment that is shown.
fn around(start: Ns, end: Ns) -> (Ns, Ns) {
    let margin = (end - start).saturating_mul(AROUND);
    (start.saturating_sub(margin), end.saturating_add(margin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vcpu_sched::{CpuId, VcpuId};

    fn stop(donor: u32, ran: Ns) -> Event {
        Event::Stop {
            cpu: CpuId(0),
            donor: VcpuId(donor),
            curr: VcpuId(0),
            ran,
        }
    }

    #[test]
    fn the_longest_proxied_run_is_kept_with_what_is_around_it() {
        let mut recorder = Recorder::new(Timeline::LongestCarried);
        for (at, event) in [
            (50, stop(0, 40)),
            (95, stop(1, 5)),
            (100, stop(0, 2)),
            (150, stop(1, 20)),
            (185, stop(0, 30)),
            (1000, stop(0, 900)),
        ] {
            recorder.event(at, event);
        }
        let moment = recorder.finish().expect("there is one");
        assert_eq!((moment.start, moment.end), (130, 150));
        assert_eq!(
            moment.events.iter().map(|e| e.0).collect::<Vec<_>>(),
            [95, 100, 150, 185]
        );
    }

    #[test]
    fn without_proxying_there_is_nothing_to_show() {
        let mut recorder = Recorder::new(Timeline::LongestCarried);
        recorder.event(5, stop(0, 5));
        assert_eq!(recorder.finish(), None);
        assert_eq!(Recorder::default().finish(), None);
    }

    #[test]
    fn a_whole_run_is_kept_from_its_start_and_has_an_end() {
        let mut recorder = Recorder::new(Timeline::Whole);
        assert_eq!(recorder.finish(), None);
        for at in 1..=KEPT_OF_ALL as Ns + 5 {
            recorder.event(at, stop(0, 1));
        }
        let moment = recorder.finish().expect("recorded");
        assert_eq!((moment.start, moment.end), (1, KEPT_OF_ALL as Ns));
        assert_eq!(moment.events.len(), KEPT_OF_ALL);
    }
}
