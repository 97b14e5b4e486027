//! Ending a guest: first by its power button, then by a power cut.

use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::pauses::Pauses;
use crate::client::{Client, ClientError};

/// How long a guest may take that was powered off.
const AFTER_POWER_OFF: Duration = Duration::from_secs(10);

/// A guest has not been stopped.
#[derive(Debug, Error)]
pub enum EndError {
    /// A request failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Its process does not end.
    #[error(
        "guest {name} has not ended {}s after it was powered off; kill it with baton kill",
        AFTER_POWER_OFF.as_secs()
    )]
    Stuck {
        /// The guest.
        name: String,
    },
}

/// Presses the power button of the guest `name`, and powers it off if it has not ended after `patience`. Whether the
/// button was enough.
///
/// # Errors
/// If the pool refuses, or the guest does not end.
pub fn stop(client: &Client, name: &str, patience: Duration) -> Result<bool, EndError> {
    // The next guest of that name is another process, and not to be stopped.
    let pid = client.guest(name)?.pid;
    if !patience.is_zero() {
        client.order(name, "power-button")?;
        if has_ended(client, (name, pid), patience)? {
            return Ok(true);
        }
    }
    match client.order(name, "power-off") {
        Err(error) if error.is_missing() => return Ok(true),
        result => result?,
    }
    match has_ended(client, (name, pid), AFTER_POWER_OFF)? {
        true => Ok(false),
        false => Err(EndError::Stuck {
            name: name.to_owned(),
        }),
    }
}

/// Waits until the guest `name` of process `pid` has left the pool, for `patience` at most.
fn has_ended(
    client: &Client,
    (name, pid): (&str, Option<i32>),
    patience: Duration,
) -> Result<bool, ClientError> {
    let until = Instant::now() + patience;
    let mut pauses = Pauses::default();
    loop {
        match client.guest(name) {
            Err(error) if error.is_missing() => return Ok(true),
            Err(error) => return Err(error),
            Ok(guest) if guest.pid != pid => return Ok(true),
            Ok(_) if Instant::now() >= until => return Ok(false),
            Ok(_) => thread::sleep(pauses.next()),
        }
    }
}
