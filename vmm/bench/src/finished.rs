//! The end of a benchmark: the text for standard output, and the JSON where it was requested.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::error::BenchError;
use crate::flags::is_stdout;

/// A benchmark that has come to its end.
#[derive(Debug)]
pub struct Finished {
    /// The text for standard output.
    pub text: String,
    /// Whether the benchmark was complete and nothing in it failed.
    pub good: bool,
}

/// Writes `report` as JSON to the file `json`, if the user gave one. Returns the text for standard output:
/// the JSON, if it belongs there, or else `table`.
///
/// # Errors
/// If the report cannot be serialized, or the file cannot be written.
pub fn write_json(
    report: &impl Serialize,
    table: String,
    json: Option<&Path>,
) -> Result<String, BenchError> {
    let Some(path) = json else {
        return Ok(table);
    };
    let json = serde_json::to_string_pretty(report)? + "\n";
    if is_stdout(path) {
        return Ok(json);
    }
    fs::write(path, json).map_err(BenchError::write(path))?;
    Ok(table)
}
