//! Joining the pool, obeying its orders, and joining again when it was gone.
//!
//! ```text
//!   joined ── the socket closes, the pool announces its end, broke the protocol, or hangs ──> alone
//!   alone  ── a pool listens there again and admits the guest with the same claims ─────> joined
//! ```
//!
//! A guest that was paused is not alone but held: it runs nothing until it has joined again and is resumed.
//!
//! A thread waits for the pool's messages, so that the end of the pool's process is noticed at once, whatever the
//! vCPUs' threads do.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use baton_host::commanded::{CommandedVcpus, PoolLost};
use baton_link::connection::{Connection, ConnectionError, Patience};
use baton_link::join;
use baton_link::message::{GuestEnded, GuestMessage, JoinRequest, MAX_END, Order, PoolMessage};
use baton_link::pages::GuestPages;
use baton_link::thread_side::GuestPoolLink;
use baton_machine::{Guest, GuestEnd, GuestRecord};
use baton_os::sys;
use rustix::net::{Shutdown, sockopt};
use vcpu_sched::Counters;

use super::beat_watch::{BEAT_CHECK, BeatWatch, HUNG_CHECKS};
use super::beside_vcpus;
use super::claims;
use super::pool_error::PoolError;
use super::reports::{Reported, Reports};
use crate::run_end::RunEnd;

/// How long a pool may take to admit a guest.
const LONGEST_ANSWER: Duration = Duration::from_secs(10);
/// The first pause before the guest joins again. Each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause while no pool listens.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The pause after a pool has refused the guest.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(10);
/// When a report is sent again for which the pool had no room.
const REPORT_AGAIN: Duration = Duration::from_millis(100);
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

/// The guest that runs in the process at the moment.
struct GuestNow {
    record: Arc<GuestRecord>,
    // Not what keeps the guest: one that has ended releases what it has of the host.
    machine: Weak<Guest>,
    /// Whether it was powered off after it had ended, so that it must not start again.
    is_off: bool,
}

impl GuestNow {
    fn new(guest: &Arc<Guest>) -> Self {
        Self {
            record: Arc::clone(guest.record()),
            machine: Arc::downgrade(guest),
            is_off: false,
        }
    }
}

/// A guest and its way to the pool.
pub(super) struct Member {
    /// The pool's socket.
    path: PathBuf,
    /// What is requested, apart from what is reported.
    request: Mutex<JoinRequest>,
    /// Another one after each restart.
    guest: Mutex<GuestNow>,
    name: String,
    vcpus: Arc<CommandedVcpus>,
    /// Those that this process may use.
    host_cpus: Vec<usize>,
    /// Whether threads are kept off some of them.
    gives_way: AtomicBool,
    /// Woken when the guest is powered off between two starts.
    end: RunEnd,
    current: Mutex<Option<Arc<Membership>>>,
    reports: Mutex<Reports>,
    /// What the pool has counted for each vCPU, once it has reported that or is gone.
    counted: Mutex<Option<Vec<Counters>>>,
    was_counted: Condvar,
    /// Whether the guest has lost a pool, and what that had counted with it.
    has_lost_pool: AtomicBool,
    /// Whether the guest has ended for good, for a thread that rests.
    is_over: Mutex<bool>,
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
        guest: &Arc<Guest>,
        vcpus: Arc<CommandedVcpus>,
        end: RunEnd,
    ) -> Arc<Self> {
        let member = Arc::new(Self {
            path,
            name: request.name.clone(),
            request: Mutex::new(request),
            guest: Mutex::new(GuestNow::new(guest)),
            vcpus,
            // Without them no thread is moved.
            host_cpus: sys::affinity().unwrap_or_default(),
            gives_way: AtomicBool::new(false),
            end,
            current: Mutex::default(),
            reports: Mutex::default(),
            counted: Mutex::default(),
            was_counted: Condvar::new(),
            has_lost_pool: AtomicBool::new(false),
            is_over: Mutex::default(),
            has_ended: Condvar::new(),
        });
        member.watch_hints(guest.record());
        member
    }

    /// From here on the pool learns where the hints of the guest of `record` come from.
    fn watch_hints(self: &Arc<Self>, record: &GuestRecord) {
        let of_hook = Arc::downgrade(self);
        record.on_hints(move |record| {
            if let Some(member) = of_hook.upgrade() {
                member.report_hints(record);
            }
        });
        self.report_hints(record);
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
        let reported = lock(&self.reports).now.clone();
        let request = JoinRequest {
            hints: reported.hints.clone(),
            restarts: reported.restarts,
            ..lock(&self.request).clone()
        };
        let (pages, file) = GuestPages::create(request.vcpus.len() as u32)?;
        let link = GuestPoolLink::new(pages);
        let sides = link.vcpus();
        limit_wait(&connection, LONGEST_ANSWER)?;
        let admission = join::request(&connection, request, &file)?;
        limit_wait(&connection, BEAT_CHECK)?;
        let connection = Arc::new(connection);
        *lock(&self.current) = Some(Arc::new(Membership {
            connection: Arc::clone(&connection),
            link,
        }));
        lock(&self.reports).joined(Reported {
            ended: None,
            ..reported
        });
        // There may be more since the request.
        self.send_reports();
        let name = self.name.clone();
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

    /// Joins and obeys until the guest has ended for good. The guest has joined before.
    fn stay_joined(&self) {
        loop {
            let Some(membership) = self.current() else {
                return;
            };
            let why = self.receive(&membership);
            if self.is_over() {
                // The pool has let go of the guest. Threads that wait for a command get none.
                membership.hang_up();
                self.count(Vec::new());
                return;
            }
            *lock(&self.current) = None;
            self.has_lost_pool.store(true, Ordering::Relaxed);
            if self.gives_way.load(Ordering::Relaxed) {
                self.give_way(Vec::new());
            }
            self.go_on_without_pool(&why);
            membership.hang_up();
            drop(membership);
            // A guest that ends while it joins may not be noticed by the one that hangs up.
            if !self.join_again() || self.is_over() {
                return;
            }
            baton_os::say!("baton: guest {} has joined its pool again", self.name);
        }
    }

    /// The pool is gone, and this is `why`.
    fn go_on_without_pool(&self, why: &str) {
        let name = &self.name;
        if lock(&self.request).is_paused {
            baton_os::say!(
                "baton: guest {name}: {why}; it is paused, and stays so until the pool is back and it is resumed"
            );
            return self.vcpus.hold();
        }
        baton_os::say!(
            "baton: guest {name}: {why}; it runs on under the host's scheduler, without its reservations, until the \
             pool is back"
        );
        self.vcpus.run_alone();
    }

    /// Obeys the pool's orders until the pool is gone. Returns why it is.
    fn receive(&self, membership: &Membership) -> String {
        let mut beats = BeatWatch::default();
        loop {
            let received = membership.connection.receive(Patience::Wait);
            match received.and_then(|received| received.without_file()) {
                Ok(PoolMessage::Order(order)) => self.obey(order),
                Ok(PoolMessage::Claims(shares)) => {
                    claims::replace(&mut lock(&self.request), shares);
                }
                Ok(PoolMessage::Priority(host_cpus)) => self.give_way(host_cpus),
                Ok(PoolMessage::Paused(is_paused)) => lock(&self.request).is_paused = is_paused,
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
                // That is how the wait for a message ends.
                Err(ConnectionError::WouldBlock) if !beats.has_hung(membership.link.beats()) => {}
                Err(ConnectionError::WouldBlock) => {
                    let seconds = BEAT_CHECK.as_secs() * u64::from(HUNG_CHECKS);
                    return format!("its pool has hung for {seconds}s");
                }
                Err(error) => return format!("its pool is lost ({error})"),
            }
        }
    }

    /// vCPUs have a priority on `host_cpus`: all other threads go elsewhere, where there are other host CPUs.
    fn give_way(&self, host_cpus: Vec<usize>) {
        self.gives_way
            .store(!host_cpus.is_empty(), Ordering::Relaxed);
        beside_vcpus::keep_off(&self.host_cpus, &host_cpus, &self.vcpus);
        self.vcpus.set_cpus_with_priority(host_cpus);
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
            Order::PowerOff => self.power_off(),
            Order::Reset => {
                let record = Arc::clone(&lock(&self.guest).record);
                record.end(GuestEnd::ResetByRequest);
            }
        }
    }

    /// Ends the guest, or keeps one that has ended from starting again.
    fn power_off(&self) {
        let record = {
            let mut guest = lock(&self.guest);
            guest.is_off = true;
            Arc::clone(&guest.record)
        };
        record.end(GuestEnd::Removed);
        self.end.wake();
    }

    /// Whether the guest was powered off.
    pub(super) fn is_off(&self) -> bool {
        lock(&self.guest).is_off
    }

    fn press_power_button(&self) {
        let machine = lock(&self.guest).machine.upgrade();
        if !machine.is_some_and(|guest| guest.press_power_button()) {
            baton_os::say!(
                "baton: guest {} has no power button that could be pressed",
                self.name
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
                baton_os::say!("baton: guest {} cannot join again: {refusal}", self.name);
                last_refusal = refusal;
            }
        }
    }

    /// Waits for `time`. False: the guest has ended for good.
    fn rest(&self, time: Duration) -> bool {
        let is_over = lock(&self.is_over);
        let waited = self
            .has_ended
            .wait_timeout_while(is_over, time, |is_over| !*is_over);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn is_over(&self) -> bool {
        *lock(&self.is_over)
    }

    /// The guest has ended for good.
    fn stop_resting(&self) {
        *lock(&self.is_over) = true;
        self.has_ended.notify_all();
    }

    fn report_hints(&self, record: &GuestRecord) {
        lock(&self.reports).now.hints = record.hints_in_force().to_string();
        self.send_reports();
    }

    /// The guest has ended as `end`, and is to start again.
    pub(super) fn report_restarting(&self, end: &GuestEnd) {
        lock(&self.reports).now.ended = Some(as_reported(end));
        self.send_reports();
    }

    /// The guest has started again as `guest`.
    pub(super) fn report_restarted(self: &Arc<Self>, guest: &Arc<Guest>) {
        let before = std::mem::replace(&mut *lock(&self.guest), GuestNow::new(guest));
        if before.is_off {
            // While this one was created.
            guest.end(GuestEnd::Removed);
        }
        {
            let mut reports = lock(&self.reports);
            reports.now.restarts = guest.restarts();
            reports.now.ended = None;
        }
        self.watch_hints(guest.record());
    }

    /// Sends the reports of which the pool does not know. Returns when to do that again, if that is necessary.
    pub(super) fn send_reports(&self) -> Option<Instant> {
        let current = self.current()?;
        let mut reports = lock(&self.reports);
        reports.send(&current.connection);
        (!reports.are_sent()).then(|| Instant::now() + REPORT_AGAIN)
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
fn limit_wait(connection: &Connection, limit: Duration) -> Result<(), PoolError> {
    let kind = sockopt::Timeout::Recv;
    sockopt::set_socket_timeout(connection, kind, Some(limit))
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

    /// The guest and its way to the pool.
    pub(super) fn member(&self) -> &Arc<Member> {
        &self.member
    }

    /// Leaves the pool, for the guest has ended for good. Afterwards all vCPUs' threads have been made to end. Returns
    /// what one pool has counted for each vCPU all the time; nothing if there was no such pool.
    pub(super) fn leave(self) -> Vec<Counters> {
        let Self { member, thread } = self;
        member.stop_resting();
        let ended = lock(&member.guest).record.ended();
        if let Some(end) = ended {
            member.send(&GuestMessage::Leave(as_reported(&end)));
        }
        if !member.vcpus.wait_for_end(LONGEST_FAREWELL) {
            baton_os::say!(
                "baton: guest {}: its pool has not let go of it, so it is left without",
                member.name
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
fn as_reported(end: &GuestEnd) -> GuestEnded {
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
        let reported = as_reported(&end);
        assert!(reported.check().is_ok() && !reported.ok);
    }
}
