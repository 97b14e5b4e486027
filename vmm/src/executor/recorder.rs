//! Remembers the policy's decisions around the longest time that one vCPU ran on another's budget:
//! the moment that a timeline at the end of a run shows.

use std::collections::VecDeque;

use vcpu_sched::{Event, Events, Ns};

/// Events that are kept; older ones fall off.
const KEPT: usize = 8192;
/// How much is shown before and after the moment, in its own lengths.
const AROUND: Ns = 2;

/// A listener of the policy.
#[derive(Debug, Default)]
pub(crate) enum Recorder {
    /// Hears nothing.
    #[default]
    Off,
    /// Records.
    On(Recording),
}

/// What was heard.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    recent: VecDeque<(Ns, Event)>,
    /// Start and end of the longest proxied run so far.
    longest: Option<(Ns, Ns)>,
    /// It has not been copied yet, since what comes after it is still to come.
    waits: bool,
    best: Vec<(Ns, Event)>,
}

impl Recorder {
    pub(crate) fn new(on: bool) -> Self {
        if on {
            Self::On(Recording::default())
        } else {
            Self::Off
        }
    }

    /// The events around the moment, and its start and end; `None` if nobody ran on another's
    /// budget, or nobody listened.
    pub(crate) fn finish(&mut self) -> Option<Moment> {
        let Self::On(recording) = self else {
            return None;
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

/// A stretch of time in which a waiter's budget carried a holder, and what happened around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// What the policy decided, in order.
    pub events: Vec<(Ns, Event)>,
    /// When the proxied run began, ns.
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
        let Self::On(recording) = self else { return };
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
            donor, run, ran, ..
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
            run: VcpuId(0),
            ran,
        }
    }

    #[test]
    fn the_longest_proxied_run_is_kept_with_what_is_around_it() {
        let mut recorder = Recorder::new(true);
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
        let mut recorder = Recorder::new(true);
        recorder.event(5, stop(0, 5));
        assert_eq!(recorder.finish(), None);
        assert_eq!(Recorder::Off.finish(), None);
    }
}
