//! The numbers as text, in the format that a client reads.

use super::snapshot::MetricsSnapshot;
use super::{classic, open_metrics};

/// The media type and the text of `snapshot`, for a client that reads only Prometheus' classic text format or not.
#[must_use]
pub fn exposition(snapshot: &MetricsSnapshot, classic_only: bool) -> (&'static str, String) {
    match classic_only {
        true => (classic::CONTENT_TYPE, classic::render(snapshot)),
        false => (open_metrics::CONTENT_TYPE, open_metrics::render(snapshot)),
    }
}
