//! What a guest's process reports to its pool beside its requests: where the hints come from, and that the guest has
//! ended and starts again.
//!
//! What the pool does not know yet is the difference between two states. A report that cannot be sent, because the pool
//! is behind, stays due.

use baton_link::connection::{Connection, ConnectionError};
use baton_link::message::{GuestEnded, GuestMessage};

/// The state of a guest that is reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reported {
    /// Where its hints come from.
    pub(super) hints: String,
    /// How often it has been started again.
    pub(super) restarts: u32,
    /// How it has ended, until it has started again.
    pub(super) ended: Option<GuestEnded>,
}

/// The reports of one guest.
#[derive(Debug, Default)]
pub(super) struct Reports {
    pub(super) now: Reported,
    /// What its pool knows.
    known: Reported,
}

impl Reports {
    /// The guest has joined a pool, which knows `known` of it.
    pub(super) fn joined(&mut self, known: Reported) {
        self.known = known;
    }

    /// Whether the pool knows all.
    pub(super) fn are_sent(&self) -> bool {
        self.now == self.known
    }

    /// Sends by `connection` what the pool does not know. What does not arrive is sent by the next call.
    pub(super) fn send(&mut self, connection: &Connection) {
        // A pool that is gone or behind does without for now.
        let _ = self.try_send(connection);
    }

    fn try_send(&mut self, connection: &Connection) -> Result<(), ConnectionError> {
        let Self { now, known } = self;
        if now.restarts != known.restarts {
            let restarts = now.restarts;
            connection.send(&GuestMessage::Restarted { restarts }, None)?;
            (known.restarts, known.ended) = (restarts, None);
        }
        if let Some(ended) = &now.ended
            && known.ended.is_none()
        {
            connection.send(&GuestMessage::Restarting(ended.clone()), None)?;
            known.ended = Some(ended.clone());
        }
        if now.hints != known.hints {
            let source = now.hints.clone();
            connection.send(&GuestMessage::Hints { source }, None)?;
            known.hints.clone_from(&now.hints);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use baton_link::connection::Patience;

    use super::*;

    fn ended(text: &str) -> Option<GuestEnded> {
        let text = text.to_owned();
        Some(GuestEnded { ok: true, text })
    }

    fn received(pool: &Connection) -> Vec<GuestMessage> {
        let next = || pool.receive(Patience::DontWait).ok();
        std::iter::from_fn(next).map(|next| next.message).collect()
    }

    #[test]
    fn a_report_that_a_pool_has_no_room_for_is_sent_later() {
        let (own, pool) = Connection::pair().expect("a connection");
        let filler = GuestMessage::Hello { protocol: 0 };
        while own.send(&filler, None).is_ok() {}
        let mut reports = Reports::default();
        reports.now.hints = "page".to_owned();
        reports.now.ended = ended("reset itself");
        reports.send(&own);
        assert!(!reports.are_sent());
        while received(&pool).contains(&filler) {}
        reports.send(&own);
        assert!(reports.are_sent());
        let expected = [
            GuestMessage::Restarting(ended("reset itself").expect("an end")),
            GuestMessage::Hints {
                source: "page".to_owned(),
            },
        ];
        assert_eq!(received(&pool), expected);
        reports.send(&own);
        assert_eq!(received(&pool), []);
    }

    #[test]
    fn a_pool_that_was_behind_learns_the_last_start_before_the_end_that_followed() {
        let (own, pool) = Connection::pair().expect("a connection");
        let mut reports = Reports::default();
        reports.joined(Reported {
            ended: ended("the first"),
            ..Reported::default()
        });
        reports.now.restarts = 1;
        reports.now.ended = ended("the second");
        reports.send(&own);
        let expected = [
            GuestMessage::Restarted { restarts: 1 },
            GuestMessage::Restarting(ended("the second").expect("an end")),
        ];
        assert_eq!(received(&pool), expected);
    }
}
