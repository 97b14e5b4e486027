//! Names for what the policy handles. All are small indices, so that tables are arrays.
//!
//! The names of a guest, its vCPUs and its workers are given to others once the guest has been removed and
//! its owner has reclaimed them ([`Policy::reclaim_guest`](crate::Policy::reclaim_guest)). From its removal
//! until then they name nothing that runs, so a name that somebody still holds does no harm. To reclaim them is
//! the owner's statement that nobody holds any.

use std::fmt;

use crate::table::Id;

/// Nanoseconds: a point in time (since an origin that the caller chooses) or a length of time.
pub type Ns = u64;

/// A length of CPU time that was used, ns. Where a call takes such a length and a point in time, the types
/// keep them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuTime(pub Ns);

impl CpuTime {
    /// None.
    pub const ZERO: Self = Self(0);

    /// The time from `since` to `now`, on a CPU throughout; zero if `since` is later.
    #[must_use]
    pub const fn between(since: Ns, now: Ns) -> Self {
        Self(now.saturating_sub(since))
    }
}

macro_rules! index {
    ($(#[$doc:meta])* $visibility:vis $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $visibility struct $name(pub u32);

        impl $name {
            /// The index as a table offset.
            #[must_use]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl Id for $name {
            fn from_index(index: usize) -> Self {
                Self(index as u32)
            }

            fn index(self) -> usize {
                self.index()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

index!(
    /// A vCPU of the pool: names both its scheduling context and its execution context.
    pub VcpuId,
    "v"
);
index!(
    /// A guest of the pool. `blocked_on` edges never leave it.
    pub GuestId,
    "g"
);
index!(
    /// A thread that works for a guest beside its vCPUs.
    pub WorkerId,
    "w"
);
index!(
    /// A host CPU of the pool, counted from 0 within the pool.
    pub CpuId,
    "cpu"
);
index!(
    /// A domain: the host CPUs that serve one queue.
    pub(crate) DomainId,
    "d"
);

/// The most vCPUs in a pool.
pub const MAX_VCPUS: usize = 1 << 20;
/// The most different pinnings in a pool at one time. Each is a queue that every decision reads.
pub const MAX_PINNINGS: usize = 64;
