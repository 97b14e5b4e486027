//! What a run prints when it ends.

/// Form of the summary at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SummaryForm {
    /// A table.
    Text,
    /// One JSON object, alone on standard output: what guests print goes to standard error
    Json,
}

/// What of a run is recorded for a timeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timeline {
    /// Nothing.
    #[default]
    Off,
    /// The longest time that a waiter's budget carried a holder, and what happened around it.
    LongestCarried,
    /// Everything from the start. The run must be short.
    Whole,
}
