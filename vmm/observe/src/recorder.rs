//! Remembers the policy's decisions for a timeline at the end of a run: those around the longest time
//! that one vCPU ran on another's budget, or all of a short run.

use std::collections::VecDeque;

use baton_config::Timeline;
use vcpu_sched::{Event, Events, Ns};

/// Events that are kept; older ones fall off.
const KEPT: usize = 8192;
/// Events of a whole run that are kept; later ones are not. Some thousand come in a second.
const KEPT_OF_ALL: usize = 1 << 16;
/// How much is shown before and after the moment, in its own lengths.
const AROUND: Ns = 2;

/// A listener of the policy.
#[derive(Debug, Default)]
pub enum Recorder {
    /// Hears nothing.
    #[default]
    Off,
    /// Records what is around the longest proxied run.
    On(Recording),
    /// Records all.
    All(Vec<(Ns, Event)>),
}

/// What was heard.
#[derive(Debug, Default)]
pub struct Recording {
    recent: VecDeque<(Ns, Event)>,
    /// Start and end of the longest proxied run so far.
    longest: Option<(Ns, Ns)>,
    /// It has not been copied yet, since what comes after it is still to come.
    waits: bool,
    best: Vec<(Ns, Event)>,
}

impl Recorder {
    /// A recorder of what `timeline` shows.
    #[must_use]
    pub fn new(timeline: Timeline) -> Self {
        match timeline {
            Timeline::Off => Self::Off,
            Timeline::LongestCarried => Self::On(Recording::default()),
            // Room from the start: it is filled under the pool's lock.
            Timeline::Whole => Self::All(Vec::with_capacity(KEPT_OF_ALL)),
        }
    }

    /// The events around the moment, and its start and end; `None` if nobody ran on another's
    /// budget, nothing happened, or nobody listened.
    pub fn finish(&mut self) -> Option<Moment> {
        let recording = match self {
            Self::Off => return None,
            Self::On(recording) => recording,
            Self::All(events) => return whole(std::mem::take(events)),
        };
        if recording.waits {
            recording.copy();
        }
        let (start, end) = recording.longest?;
        Some(Moment {
            events: std::mem::take(&mut recording.best),
            start,
            end,
        })
    }
}

fn whole(events: Vec<(Ns, Event)>) -> Option<Moment> {
    let (start, end) = (events.first()?.0, events.last()?.0);
    Some(Moment { events, start, end })
}

/// A stretch of time to look at, in which a waiter's budget carried a holder unless a whole run was
/// to be recorded, and what happened around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// What the policy decided, in order.
    pub events: Vec<(Ns, Event)>,
    /// When it began, ns.
    pub start: Ns,
    /// When it ended, ns.
    pub end: Ns,
}

impl Recording {
    /// The stretch around the moment that is shown.
    fn window(start: Ns, end: Ns) -> (Ns, Ns) {
        let around = (end - start).saturating_mul(AROUND);
        (start.saturating_sub(around), end.saturating_add(around))
    }

    fn copy(&mut self) {
        self.waits = false;
        if let Some((start, end)) = self.longest {
            let (from, to) = Self::window(start, end);
            let within = self
                .recent
                .iter()
                .filter(|(at, _)| (from..=to).contains(at));
            self.best = within.copied().collect();
        }
    }
}

impl Events for Recorder {
    fn event(&mut self, at: Ns, event: Event) {
        let recording = match self {
            Self::Off => return,
            Self::On(recording) => recording,
            Self::All(events) => {
                if events.len() < KEPT_OF_ALL {
                    events.push((at, event));
                }
                return;
            }
        };
        if recording.waits
            && recording
                .longest
                .is_some_and(|(start, end)| at > Recording::window(start, end).1)
        {
            recording.copy();
        }
        if recording.recent.len() == KEPT {
            recording.recent.pop_front();
        }
        recording.recent.push_back((at, event));
        if let Event::Stop {
            donor,
            curr: run,
            ran,
            ..
        } = event
            && donor != run
            && !recording.waits
            && recording
                .longest
                .is_none_or(|(start, end)| ran > end - start)
        {
            recording.longest = Some((at.saturating_sub(ran), at));
            recording.waits = true;
        }
    }
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
        assert_eq!(Recorder::Off.finish(), None);
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
