//! Names for what the policy handles. All are small indices, so that tables are arrays.

use std::fmt;

/// Nanoseconds: a point in time (since an origin the caller chose) or a length of time.
pub type Ns = u64;

macro_rules! index {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl $name {
            /// The index as a table offset.
            #[must_use]
            pub const fn index(self) -> usize {
                self.0 as usize
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
    VcpuId,
    "v"
);
index!(
    /// A guest of the pool. `blocked_on` edges never leave it.
    GuestId,
    "g"
);
index!(
    /// A thread that works for a guest beside its vCPUs.
    WorkerId,
    "h"
);
index!(
    /// A host CPU of the pool, counted from 0 within the pool.
    CpuId,
    "cpu"
);

/// The most vCPUs in a pool.
pub const MAX_VCPUS: usize = 1 << 20;
/// The most different pinnings in a pool: each is a queue that `pick` looks at.
pub const MAX_PINNINGS: usize = 64;
