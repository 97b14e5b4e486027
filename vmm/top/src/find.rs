//! Which instance is shown.

use std::path::PathBuf;

use baton_observe::control;

use super::error::TopError;

/// The socket of instance `pid`, or of the only one.
///
/// # Errors
/// If there is none, or if there are several and `pid` is `None`.
pub fn find(pid: Option<u32>) -> Result<PathBuf, TopError> {
    let mut all = control::instances();
    if let Some(pid) = pid {
        all.retain(|(id, _)| *id == pid);
    }
    match &all[..] {
        [] => Err(match pid {
            None => TopError::None(control::directories()),
            Some(pid) => TopError::NotThis(pid, control::directories()),
        }),
        [(_, path)] => Ok(path.clone()),
        several => {
            let ids: Vec<String> = several.iter().map(|(id, _)| id.to_string()).collect();
            Err(TopError::Several(ids.join(" ")))
        }
    }
}
