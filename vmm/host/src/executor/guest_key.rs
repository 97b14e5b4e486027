//! Which guest of a pool a call is about. A name may be that of another guest a moment later, so whoever has checked
//! something about a guest goes on with its identity.

use std::sync::Arc;

use baton_machine::GuestRecord;

/// A guest that has joined a pool. It is never taken for another guest of its name.
#[derive(Clone, Debug)]
pub struct GuestIdentity(Arc<GuestRecord>);

impl GuestIdentity {
    /// The identity of the guest of `record`.
    #[must_use]
    pub fn of(record: &Arc<GuestRecord>) -> Self {
        Self(Arc::clone(record))
    }

    /// The guest's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }
}

impl PartialEq for GuestIdentity {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for GuestIdentity {}

/// The guest that a call is about.
#[derive(Clone, Copy, Debug)]
pub enum GuestKey<'a> {
    /// The one that has this name now.
    Name(&'a str),
    /// The one with this record.
    Record(&'a GuestRecord),
}

impl<'a> GuestKey<'a> {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'a str {
        match self {
            Self::Name(name) => name,
            Self::Record(record) => &record.name,
        }
    }
}

impl<'a> From<&'a str> for GuestKey<'a> {
    fn from(name: &'a str) -> Self {
        Self::Name(name)
    }
}

impl<'a> From<&'a String> for GuestKey<'a> {
    fn from(name: &'a String) -> Self {
        Self::Name(name)
    }
}

impl<'a> From<&'a GuestIdentity> for GuestKey<'a> {
    fn from(identity: &'a GuestIdentity) -> Self {
        Self::Record(&identity.0)
    }
}
