//! One run of one guest.

use serde::Serialize;
use serde_json::Value;

use super::figures::WorkFigures;
use super::guest::GuestResults;
use super::plan::LinuxCell;

/// One run: the guest that reported, and those that were started before it and did not.
#[derive(Debug, Serialize)]
pub(super) struct GuestRun {
    pub(super) round: u32,
    #[serde(flatten)]
    pub(super) cell: LinuxCell,
    /// Release of the guest's kernel, as the guest reported it.
    release: Option<String>,
    pub(super) restarts: u32,
    pub(super) works: Vec<WorkFigures>,
    /// The guest in the summary of `baton run`.
    summary: Value,
}

impl GuestRun {
    pub(super) fn new(round: u32, cell: LinuxCell, restarts: u32, results: GuestResults) -> Self {
        Self {
            round,
            cell,
            release: results.release,
            restarts,
            works: results.figures,
            summary: results.summary,
        }
    }
}
