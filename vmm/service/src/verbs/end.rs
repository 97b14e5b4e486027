//! Ending a guest: first by its power button, then by a power cut.

use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::client::{Client, ClientError};

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(100);
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
    if !patience.is_zero() {
        client.order(name, "power-button")?;
        if has_ended(client, name, patience)? {
            return Ok(true);
        }
    }
    match client.order(name, "power-off") {
        Err(error) if error.is_missing() => return Ok(true),
        result => result?,
    }
    match has_ended(client, name, AFTER_POWER_OFF)? {
        true => Ok(false),
        false => Err(EndError::Stuck {
            name: name.to_owned(),
        }),
    }
}

/// Waits until the guest `name` has left the pool, for `patience` at most.
fn has_ended(client: &Client, name: &str, patience: Duration) -> Result<bool, ClientError> {
    let until = Instant::now() + patience;
    loop {
        match client.guest(name) {
            Err(error) if error.is_missing() => return Ok(true),
            Err(error) => return Err(error),
            Ok(_) if Instant::now() >= until => return Ok(false),
            Ok(_) => thread::sleep(EVERY),
        }
    }
}
