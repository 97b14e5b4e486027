//! How many requests of each user may wait for the pool at once. Each waits on a thread of its own.
//!
//! One user's requests leave places for those of others, and those of all users leave some for root's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places of one user.
const OF_USER: usize = 2;
/// Places of all users but root.
const OF_USERS: usize = 8;
/// Places of root.
const OF_ROOT: usize = 2;
/// All places.
pub(super) const MAX_WORK: usize = OF_USERS + OF_ROOT;

/// The places.
#[derive(Clone, Debug)]
pub(super) struct WorkPlaces {
    users: Arc<Semaphore>,
    /// For each user who has a request, and his share.
    shares: Arc<Mutex<HashMap<u32, Arc<Semaphore>>>>,
}

/// A place for one request, which is free again when this is dropped.
#[derive(Debug)]
pub(super) struct WorkPlace {
    /// Dropped first, so that the share can be found unused.
    _held: [Option<OwnedSemaphorePermit>; 2],
    _share: Share,
}

/// The share of a user, who needs none when the last request of his is done.
#[derive(Debug)]
struct Share {
    places: WorkPlaces,
    uid: u32,
    semaphore: Option<Arc<Semaphore>>,
}

impl Default for WorkPlaces {
    fn default() -> Self {
        Self {
            users: Arc::new(Semaphore::new(OF_USERS)),
            shares: Arc::default(),
        }
    }
}

impl WorkPlaces {
    fn shares(&self) -> MutexGuard<'_, HashMap<u32, Arc<Semaphore>>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a request of user `uid`, as soon as there is one.
    pub(super) async fn take(&self, uid: u32) -> WorkPlace {
        let of_one = if uid == 0 { OF_ROOT } else { OF_USER };
        let new = || Arc::new(Semaphore::new(of_one));
        let semaphore = Arc::clone(self.shares().entry(uid).or_insert_with(new));
        // From here on, also for a request that is given up while it waits.
        let share = Share {
            places: self.clone(),
            uid,
            semaphore: Some(Arc::clone(&semaphore)),
        };
        // The user's own place first: one that waits for it takes none of those of all. No semaphore is ever closed.
        let own = semaphore.acquire_owned().await.ok();
        let of_all = match uid {
            0 => None,
            _ => Arc::clone(&self.users).acquire_owned().await.ok(),
        };
        WorkPlace {
            _held: [own, of_all],
            _share: share,
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut shares = self.places.shares();
        self.semaphore = None;
        // Requests of the user hold the others.
        if shares
            .get(&self.uid)
            .is_some_and(|own| Arc::strong_count(own) == 1)
        {
            shares.remove(&self.uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// The place, if there is one now.
    fn now<T>(take: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match take.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(place) => Some(place),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_user_whose_requests_all_wait_leaves_places_for_others_and_all_users_leave_some_for_root() {
        let places = WorkPlaces::default();
        let mut taken = Vec::new();
        for uid in 1000..1004 {
            for _ in 0..OF_USER {
                taken.push(now(pin!(places.take(uid))).expect("a place"));
            }
            assert!(
                now(pin!(places.take(uid))).is_none(),
                "the user has his share"
            );
        }
        assert!(
            now(pin!(places.take(1004))).is_none(),
            "the users have all of theirs"
        );
        let of_root = now(pin!(places.take(0))).expect("root has places");
        let mut waits = pin!(places.take(1004));
        assert!(now(waits.as_mut()).is_none());
        drop(taken.pop());
        drop(now(waits.as_mut()).expect("the one that was free"));
        drop((taken, of_root));
        assert_eq!(places.users.available_permits(), OF_USERS);
        assert!(places.shares().is_empty(), "{:?}", places.shares());
    }
}
