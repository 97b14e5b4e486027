//! The scheduling classes: reservations (earliest deadline first) and best effort (fair queueing).

pub(crate) mod admission;
pub(crate) mod cbs;
pub(crate) mod delivery;
pub(crate) mod fair;
pub(crate) mod rank;
pub(crate) mod reservation;
pub(crate) mod reservation_text;
pub(crate) mod sched_class;
pub(crate) mod virtual_time;
