//! Joining the pool, obeying its orders, and joining again when it was gone.
//!
//! ```text
//!   joined ── the socket closes, the pool announces its end, or it broke the protocol ──> alone
//!   alone  ── a pool listens there again and admits the guest with the same claims ─────> joined
//! ```
//!
//! A thread waits for the pool's messages, so that the end of the pool's process is noticed at once, whatever the
//! vCPUs' threads do.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use baton_host::commanded::{CommandedVcpus, PoolLost};
use baton_link::connection::{Connection, ConnectionError, Patience};
use baton_link::join;
use baton_link::message::{GuestEnded, GuestMessage, JoinRequest, MAX_END, Order, PoolMessage};
use baton_link::pages::GuestPages;
use baton_link::thread_side::GuestPoolLink;
use baton_machine::{Guest, GuestEnd, GuestRecord};
use rustix::net::{Shutdown, sockopt};
use vcpu_sched::Counters;

use super::claims;
use super::pool_error::PoolError;

/// How long a pool may take to admit a guest.
const LONGEST_ANSWER: Duration = Duration::from_secs(10);
/// The first pause before the guest joins again. Each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause while no pool listens.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The pause after a pool has refused the guest.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(10);
/// How long the pool may take to take its commands back when the guest has ended.
const LONGEST_FAREWELL: Duration = Duration::from_secs(2);

/// A pool that has admitted the guest, until it is gone.
struct Membership {
    connection: Arc<Connection>,
    link: GuestPoolLink,
}

impl Membership {
    /// No thread waits for the pool any more.
    fn hang_up(&self) {
        self.link.hang_up();
        close(&self.connection);
    }
}

/// Ends the connection for both sides, also while a thread receives from it.
fn close(connection: &Connection) {
    // It may be closed already.
    let _ = rustix::net::shutdown(connection.as_fd(), Shutdown::Both);
}

/// A guest and its way to the pool.
pub(super) struct Member {
    /// The pool's socket.
    path: PathBuf,
    /// What is requested, apart from the source of the hints.
    request: Mutex<JoinRequest>,
    guest: Arc<GuestRecord>,
    // Not what keeps the guest: one that has ended releases what it has of the host.
    machine: Weak<Guest>,
    vcpus: Arc<CommandedVcpus>,
    current: Mutex<Option<Arc<Membership>>>,
    /// Where the hints come from, as the pool knows it.
    reported_hints: Mutex<String>,
    /// What the pool has counted for each vCPU, once it has reported that or is gone.
    counted: Mutex<Option<Vec<Counters>>>,
    was_counted: Condvar,
    /// Whether the guest has lost a pool, and what that had counted with it.
    has_lost_pool: AtomicBool,
    /// Whether the guest has ended, for a thread that rests.
    ended: Mutex<bool>,
    has_ended: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Member {
    /// A guest that has not joined.
    pub(super) fn new(
        path: PathBuf,
        request: JoinRequest,
        guest: Arc<Guest>,
        vcpus: Arc<CommandedVcpus>,
    ) -> Arc<Self> {
        let member = Arc::new(Self {
            path,
            request: Mutex::new(request),
            guest: Arc::clone(guest.record()),
            machine: Arc::downgrade(&guest),
            vcpus,
            current: Mutex::default(),
            reported_hints: Mutex::default(),
            counted: Mutex::default(),
            was_counted: Condvar::new(),
            has_lost_pool: AtomicBool::new(false),
            ended: Mutex::default(),
            has_ended: Condvar::new(),
        });
        let of_hook = Arc::downgrade(&member);
        member.guest.on_hints(move |_| {
            if let Some(member) = of_hook.upgrade() {
                member.report_hints();
            }
        });
        member
    }

    fn current(&self) -> Option<Arc<Membership>> {
        lock(&self.current).clone()
    }

    /// Has the guest join, with new pages. Its vCPUs' threads obey the pool from then on.
    ///
    /// # Errors
    /// If no pool listens, or it does not admit the guest. Nothing has changed then.
    pub(super) fn join(&self) -> Result<(), PoolError> {
        let not_there = |source| PoolError::NotThere {
            path: self.path.clone(),
            source,
        };
        let connection = Connection::connect(&self.path).map_err(not_there)?;
        let request = JoinRequest {
            hints: self.guest.hints_in_force().to_string(),
            ..lock(&self.request).clone()
        };
        let (pages, file) = GuestPages::create(request.vcpus.len() as u32)?;
        let link = GuestPoolLink::new(pages);
        let sides = link.vcpus();
        let hints = request.hints.clone();
        limit_wait(&connection, Some(LONGEST_ANSWER))?;
        let admission = join::request(&connection, request, &file)?;
        limit_wait(&connection, None)?;
        let connection = Arc::new(connection);
        *lock(&self.current) = Some(Arc::new(Membership {
            connection: Arc::clone(&connection),
            link,
        }));
        *lock(&self.reported_hints) = hints;
        // They may have changed since the request.
        self.report_hints();
        let name = self.guest.name.clone();
        let reported = AtomicBool::new(false);
        let on_lost = move |lost: PoolLost| {
            // The other threads find the same.
            if !reported.swap(true, Ordering::Relaxed) {
                baton_os::say!("baton: guest {name}: {lost}");
            }
            close(&connection);
        };
        self.vcpus.obey(sides, admission.wakes, Arc::new(on_lost));
        Ok(())
    }

    /// Joins and obeys until the guest has ended. The guest has joined before.
    fn stay_joined(&self) {
        loop {
            let Some(membership) = self.current() else {
                return;
            };
            let why = self.receive(&membership.connection);
            if self.guest.has_ended() {
                // The pool has let go of the guest. Threads that wait for a command get none.
                membership.hang_up();
                self.count(Vec::new());
                return;
            }
            baton_os::say!(
                "baton: guest {}: {why}; it runs on under the host's scheduler, without its reservations, until \
                 the pool is back",
                self.guest.name
            );
            *lock(&self.current) = None;
            self.has_lost_pool.store(true, Ordering::Relaxed);
            self.vcpus.run_alone();
            membership.hang_up();
            drop(membership);
            // A guest that ends while it joins may not be noticed by the one that hangs up.
            if !self.join_again() || self.guest.has_ended() {
                return;
            }
            baton_os::say!("baton: guest {} has joined its pool again", self.guest.name);
        }
    }

    /// Obeys the pool's orders until the pool is gone. Returns why it is.
    fn receive(&self, connection: &Connection) -> String {
        loop {
            let received = connection.receive(Patience::Wait);
            match received.and_then(|received| received.without_file()) {
                Ok(PoolMessage::Order(order)) => self.obey(order),
                Ok(PoolMessage::Claims(shares)) => {
                    claims::replace(&mut lock(&self.request), shares);
                }
                Ok(PoolMessage::Counted(counted)) => {
                    self.count(counted.counters());
                }
                Ok(PoolMessage::GoingAway { .. }) => return "its pool ends".to_owned(),
                // This process sends no request that they could answer.
                Ok(PoolMessage::Changed | PoolMessage::Refused { .. }) => {}
                Ok(PoolMessage::Welcome { .. } | PoolMessage::Admitted { .. }) => {
                    return "its pool broke the protocol".to_owned();
                }
                Err(ConnectionError::Closed) => return "its pool is gone".to_owned(),
                Err(error) => return format!("its pool is lost ({error})"),
            }
        }
    }

    /// The pool has counted this for each vCPU. Only its first report counts.
    fn count(&self, counters: Vec<Counters>) {
        lock(&self.counted).get_or_insert(counters);
        self.was_counted.notify_all();
    }

    /// Waits for what the pool has counted for each vCPU, which lets go of the guest. Nothing: another pool has counted
    /// a part of it, or the pool does not report it.
    fn counted(&self) -> Vec<Counters> {
        if self.has_lost_pool.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let waited =
            self.was_counted
                .wait_timeout_while(lock(&self.counted), LONGEST_FAREWELL, |counted| {
                    counted.is_none()
                });
        let (mut counted, _) = waited.unwrap_or_else(PoisonError::into_inner);
        counted.take().unwrap_or_default()
    }

    fn obey(&self, order: Order) {
        match order {
            Order::PowerButton => self.press_power_button(),
            Order::PowerOff => self.guest.end(GuestEnd::Removed),
            Order::Reset => self.guest.end(GuestEnd::Reset),
        }
    }

    fn press_power_button(&self) {
        let machine = self.machine.upgrade();
        if !machine.is_some_and(|guest| guest.press_power_button()) {
            baton_os::say!(
                "baton: guest {} has no power button that could be pressed",
                self.guest.name
            );
        }
    }

    /// Tries to join until that has succeeded. False: the guest has ended before.
    fn join_again(&self) -> bool {
        let mut pause = FIRST_PAUSE;
        let mut last_refusal = String::new();
        loop {
            if !self.rest(pause) {
                return false;
            }
            let error = match self.join() {
                Ok(()) => return true,
                Err(error) => error,
            };
            pause = match error.is_refusal() {
                true => PAUSE_AFTER_REFUSAL,
                false => (pause * 2).min(LONGEST_PAUSE),
            };
            let refusal = error.to_string();
            if error.is_refusal() && refusal != last_refusal {
                baton_os::say!(
                    "baton: guest {} cannot join again: {refusal}",
                    self.guest.name
                );
                last_refusal = refusal;
            }
        }
    }

    /// Waits for `time`. False: the guest has ended.
    fn rest(&self, time: Duration) -> bool {
        let ended = lock(&self.ended);
        let waited = self
            .has_ended
            .wait_timeout_while(ended, time, |ended| !*ended);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// The guest has ended.
    fn stop_resting(&self) {
        *lock(&self.ended) = true;
        self.has_ended.notify_all();
    }

    /// Reports where the hints come from, if that is not what the pool knows.
    fn report_hints(&self) {
        let mut reported = lock(&self.reported_hints);
        let source = self.guest.hints_in_force().to_string();
        if *reported != source {
            reported.clone_from(&source);
            self.send(&GuestMessage::Hints { source });
        }
    }

    /// Sends `message`, if there is a pool.
    fn send(&self, message: &GuestMessage) {
        if let Some(membership) = self.current() {
            // A pool that is gone or behind does without.
            let _ = membership.connection.send(message, None);
        }
    }
}

/// Limits how long a receive waits.
fn limit_wait(connection: &Connection, limit: Option<Duration>) -> Result<(), PoolError> {
    let kind = sockopt::Timeout::Recv;
    sockopt::set_socket_timeout(connection, kind, limit)
        .map_err(|errno| join::JoinError::from(ConnectionError::Host(errno)).into())
}

/// The thread that keeps a guest in its pool.
pub(super) struct PoolClient {
    member: Arc<Member>,
    thread: JoinHandle<()>,
}

impl PoolClient {
    /// For a guest that has joined.
    ///
    /// # Errors
    /// If the host refuses the thread.
    pub(super) fn start(member: Arc<Member>) -> io::Result<Self> {
        let thread = thread::Builder::new().name("pool".into()).spawn({
            let member = Arc::clone(&member);
            move || member.stay_joined()
        })?;
        Ok(Self { member, thread })
    }

    /// Leaves the pool, for the guest has ended. Afterwards all vCPUs' threads have been made to end. Returns what one
    /// pool has counted for each vCPU all the time; nothing if there was no such pool.
    pub(super) fn leave(self) -> Vec<Counters> {
        let Self { member, thread } = self;
        member.stop_resting();
        if let Some(end) = member.guest.ended() {
            member.send(&GuestMessage::Leave(farewell(&end)));
        }
        if !member.vcpus.wait_for_end(LONGEST_FAREWELL) {
            baton_os::say!(
                "baton: guest {}: its pool has not let go of it, so it is left without",
                member.guest.name
            );
        }
        // Without a pool, the thread may wait for the answer of one that does not answer.
        let Some(membership) = member.current() else {
            return Vec::new();
        };
        let counted = member.counted();
        membership.hang_up();
        // A thread that panicked has reported that on standard error.
        let _ = thread.join();
        counted
    }
}

/// How the guest has ended, as the pool takes it.
fn farewell(end: &GuestEnd) -> GuestEnded {
    let shown = |c: char| if (' '..='~').contains(&c) { c } else { '?' };
    GuestEnded {
        ok: end.is_success(),
        text: end.to_string().chars().map(shown).take(MAX_END).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_accepts_every_text_about_the_end() {
        let end = GuestEnd::InternalError {
            vcpu: 0,
            text: "\u{1b}[31mé\n".repeat(MAX_END),
        };
        let farewell = farewell(&end);
        assert!(farewell.check().is_ok() && !farewell.ok);
    }
}
