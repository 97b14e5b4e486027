//! One table, without a live view.

use std::path::PathBuf;
use std::time::Duration;

use super::app::App;
use super::error::TopError;
use super::{client, view};

/// One table over `interval`, as plain text.
///
/// # Errors
/// If the instance does not answer.
pub fn once(path: PathBuf, interval: Duration) -> Result<String, TopError> {
    let ask = TopError::ask(&path);
    let mut app = App::new(client::snapshot(&path).map_err(&ask)?);
    std::thread::sleep(interval);
    app.update(client::snapshot(&path).map_err(&ask)?);
    Ok(view::plain(&app))
}
