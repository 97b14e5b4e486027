//! A guest that a scheduler can run.

use std::sync::Arc;

use baton_config::GuestConfig;
use baton_machine::{Guest, Vcpu};

/// A guest that is ready to run.
#[derive(Debug)]
pub struct ReadyGuest {
    /// The guest.
    pub guest: Arc<Guest>,
    /// Its configuration.
    pub config: GuestConfig,
    /// Its vCPUs, in order.
    pub vcpus: Vec<Box<Vcpu>>,
}
