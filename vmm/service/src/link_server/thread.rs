//! The thread of the link. It waits for nothing but its epoll instance.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use baton_link::LinkError;
use baton_link::connection::{Connection, ConnectionError, ForeignFile, Patience, Received};
use baton_link::message::{GuestMessage, JoinRequest, PROTOCOL, PoolMessage};
use baton_link::wake_file::WakeFile;
use baton_os::event::Event;
use baton_os::listener::{Access, ListenError, OwnListener};
use baton_os::peer::Peer;
use baton_os::sys;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use thiserror::Error;

use super::acceptor::{Accepted, Acceptor};
use super::client::{Client, Phase};
use super::clients::Clients;
use super::failures::{FailureReport, Failures, failures};
use super::file_budget::FileBudget;
use super::wake_limit::WakeLimit;
use crate::grants::Rights;
use crate::join::Departure;
use crate::notice_limit::NoticeLimit;
use crate::process_pool::Refusal;
use crate::service::Service;

/// What the epoll instance reports: these two, and for client `n` its socket as `2n` and its wakes as `2n + 1`.
const LISTENER: u64 = u64::MAX;
const EVENT: u64 = u64::MAX - 1;
/// Events that are read at once.
const EVENTS: usize = 64;
/// Connections that are accepted before others are served.
const ACCEPTED: usize = 16;
/// Longest reason why a process was dropped, characters.
const MAX_REASON: usize = 256;
/// Pause where the thread cannot wait.
const REST: Duration = Duration::from_millis(100);

/// The socket at which guests join cannot be offered.
#[derive(Debug, Error)]
#[error("cannot listen at {}: {source}", path.display())]
pub struct LinkServerError {
    /// The socket.
    pub path: PathBuf,
    /// The host's reason.
    pub source: io::Error,
}

/// Serves the processes of guests until it is dropped.
#[derive(Debug)]
pub struct LinkServer {
    event: Arc<Event>,
    stop: Arc<AtomicBool>,
    /// Set by the thread each time that it has waited.
    answers: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LinkServer {
    /// Listens at `path` for guests that join the pool of `service`. The thread uses the host CPUs `cpus`.
    ///
    /// # Errors
    /// If another pool listens there, or the host refuses.
    pub fn start(
        path: &Path,
        service: &Arc<Service>,
        cpus: &[usize],
    ) -> Result<Self, LinkServerError> {
        let failed = |source| LinkServerError {
            path: path.to_owned(),
            source,
        };
        let listener = OwnListener::bind_packets(path, Access::Everybody);
        let listener = listener.map_err(|error| failed(refused(error)))?;
        let event = Arc::new(Event::new().map_err(failed)?);
        let stop = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(AtomicBool::new(true));
        let links = Links::new(listener, service, &event, (&stop, &answers)).map_err(failed)?;
        let cpus = cpus.to_vec();
        let run = move || {
            // Where it cannot be moved, it works here.
            let _ = sys::set_affinity(&cpus);
            links.run();
        };
        let thread = thread::Builder::new().name("link".into()).spawn(run);
        Ok(Self {
            event,
            stop,
            answers,
            thread: Some(thread.map_err(failed)?),
        })
    }

    /// Whether the thread has done something since the last call.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let answered = self.answers.swap(false, Ordering::AcqRel);
        self.event.set();
        answered
    }
}

fn refused(error: ListenError) -> io::Error {
    match error {
        ListenError::InUse => io::Error::other("another pool listens there; give another --dir"),
        error => error.into(),
    }
}

impl Drop for LinkServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.event.set();
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by then.
            let _ = thread.join();
        }
    }
}

/// What the thread works with.
struct Links {
    service: Arc<Service>,
    acceptor: Acceptor,
    epoll: OwnedFd,
    event: Arc<Event>,
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicBool>,
    clients: Clients,
    files: FileBudget,
    /// Reports of connections that were closed because no file was left.
    full: NoticeLimit,
    report: Arc<Failures>,
    failures: Receiver<(u64, LinkError)>,
}

/// A client is to be dropped.
struct Dropped(Departure);

impl Dropped {
    fn failed(reason: impl ToString) -> Self {
        // It may quote what the process has sent.
        let reason: String = reason.to_string().escape_debug().take(MAX_REASON).collect();
        Self(Departure::Failed(reason))
    }
}

impl Links {
    fn new(
        listener: OwnListener,
        service: &Arc<Service>,
        event: &Arc<Event>,
        (stop, answers): (&Arc<AtomicBool>, &Arc<AtomicBool>),
    ) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, event, EventData::new_u64(EVENT), EventFlags::IN)?;
        let (report, failures) = failures(Arc::clone(event));
        Ok(Self {
            service: Arc::clone(service),
            acceptor: Acceptor::new(listener, &epoll, LISTENER)?,
            epoll,
            event: Arc::clone(event),
            stop: Arc::clone(stop),
            answers: Arc::clone(answers),
            clients: Clients::default(),
            files: FileBudget::of_this_process(),
            full: NoticeLimit::of_process(),
            report,
            failures,
        })
    }

    fn run(mut self) {
        while !self.stop.load(Ordering::Acquire) {
            let events = self.wait();
            self.answers.store(true, Ordering::Release);
            for event in events {
                match event {
                    LISTENER => self.accept(),
                    EVENT => self.take_failures(),
                    wakes if wakes % 2 == 1 => self.wake(wakes / 2),
                    socket => self.receive(socket / 2),
                }
            }
            let now = sys::monotonic_ns();
            self.acceptor.go_on(&self.epoll, LISTENER, now);
            for id in self.clients.expired(now) {
                self.drop_client(id, Departure::Gone);
            }
            for id in self.clients.resumed(now) {
                self.read_wakes_again(id);
            }
        }
        self.release();
    }

    /// Leaves all guests to the host's scheduler until the pool is back.
    fn release(&self) {
        let message = PoolMessage::GoingAway { restarts: true };
        self.service.processes.send_all(&message);
        let guests = self.clients.guests();
        for number in &guests {
            // Before the executors end, so that none waits for a vCPU whose thread goes on by itself.
            self.service.pool.process_gone(*number, None);
        }
        tracing::info!(guests = guests.len(), "guests are left to the host");
    }

    /// Waits for events, and until a client expires.
    fn wait(&self) -> Vec<u64> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS);
        let now = sys::monotonic_ns();
        let timers = [self.clients.next_timer(), self.acceptor.rests_until()];
        let next = timers.into_iter().flatten().min();
        let left = next.map(|at| at.saturating_sub(now) + 1);
        let left = left.and_then(|ns| Timespec::try_from(Duration::from_nanos(ns)).ok());
        let room = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&self.epoll, room, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "the thread of the link cannot wait");
                thread::sleep(REST);
            }
        }
        events.iter().map(|event| event.data.u64()).collect()
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTED {
            let now = sys::monotonic_ns();
            let stream = match self.acceptor.accept(&self.epoll, now) {
                Accepted::Connection(stream) => stream,
                Accepted::Closed(error) => {
                    if let Some(before) = self.full.take(now) {
                        tracing::warn!(%error, before, "a guest's process cannot connect");
                    }
                    continue;
                }
                Accepted::None => return,
            };
            let Ok(peer) = Peer::of(&stream) else {
                continue;
            };
            let is_stranger = self.service.grants().of(&peer) == Rights::None;
            let may_connect = self.clients.may_connect(&peer, is_stranger, now);
            if !may_connect || !self.clients.has_room_for(&peer) {
                tracing::debug!(uid = peer.uid, "too many connections of this user");
                continue;
            }
            let connection = Connection::from(OwnedFd::from(stream));
            let client = Client::new(connection, (peer, is_stranger), now);
            let connection = Arc::clone(&client.connection);
            let id = self.clients.add(client);
            let watched = epoll::add(
                &self.epoll,
                &*connection,
                EventData::new_u64(2 * id),
                EventFlags::IN | EventFlags::RDHUP,
            );
            if watched.is_err() {
                self.clients.remove(id);
            }
        }
    }

    fn take_failures(&mut self) {
        self.event.take();
        while let Ok((number, error)) = self.failures.try_recv() {
            if let Some(id) = self.clients.of_guest(number) {
                self.drop_client(id, Departure::Failed(error.to_string()));
            }
        }
    }

    fn wake(&mut self, id: u64) {
        let Some(Phase::Joined {
            number,
            wakes,
            limit,
        }) = self.clients.get_mut(id).map(|client| &mut client.phase)
        else {
            return;
        };
        let woken = self.service.pool.wake_reported(*number);
        if !limit.reported(woken, sys::monotonic_ns()) {
            // Otherwise a process that writes the file in a loop would take this thread from the others.
            let _ = epoll::delete(&self.epoll, wakes);
        }
    }

    /// Reads the reports of wakes of client `id` again, which were left unread. None of them is lost: the file is
    /// never read, so that the epoll instance reports it at once.
    fn read_wakes_again(&mut self, id: u64) {
        let client = self.clients.get_mut(id);
        let Some(Phase::Joined { wakes, limit, .. }) = client.map(|client| &mut client.phase)
        else {
            return;
        };
        limit.resume();
        if let Err(error) = wakes.watch(&self.epoll, 2 * id + 1) {
            self.drop_client(id, Departure::Failed(error.to_string()));
        }
    }

    /// Receives one message of client `id`. If there are more, the epoll instance reports that again.
    fn receive(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        let received = client.connection.receive(Patience::DontWait);
        let done = match received {
            Err(ConnectionError::WouldBlock) => Ok(()),
            Err(ConnectionError::Closed) => Err(Dropped(Departure::Gone)),
            Err(error) => Err(Dropped::failed(error)),
            Ok(_) if !client.limit.take(sys::monotonic_ns()) => {
                Err(Dropped::failed("it sent too many messages"))
            }
            Ok(received) => self.handle(id, received),
        };
        if let Err(Dropped(how)) = done {
            self.drop_client(id, how);
        }
    }

    fn handle(&mut self, id: u64, received: Received<GuestMessage>) -> Result<(), Dropped> {
        let Some(client) = self.clients.get_mut(id) else {
            return Ok(());
        };
        let Received { message, file } = received;
        let joining = matches!(message, GuestMessage::Join(_));
        if file.is_some() && !joining {
            return Err(Dropped::failed(ConnectionError::Files));
        }
        match (message, &client.phase) {
            (GuestMessage::Hello { protocol }, Phase::Silent) => client.greet(protocol),
            (GuestMessage::Join(request), Phase::Greeted) => self.join(id, request, file),
            (GuestMessage::Change(change), &Phase::Joined { number, .. }) => {
                let changed = self.service.change_own(&client.peer, number, &change);
                client.answer(changed.map(|()| PoolMessage::Changed))
            }
            (GuestMessage::Hints { source }, &Phase::Joined { number, .. }) => {
                let set = self.service.set_hints(number, source);
                set.map_err(|failure| Dropped::failed(failure.error.error))
            }
            (GuestMessage::Restarting(ended), &Phase::Joined { number, .. }) => {
                let noted = self.service.restarting(number, ended);
                noted.map_err(|failure| Dropped::failed(failure.error.error))
            }
            (GuestMessage::Restarted { restarts }, &Phase::Joined { number, .. }) => {
                self.service.restarted(number, restarts);
                Ok(())
            }
            (GuestMessage::Leave(ended), Phase::Joined { .. }) => {
                ended.check().map_err(Dropped::failed)?;
                Err(Dropped(Departure::Ended(ended)))
            }
            _ => Err(Dropped::failed("it sent a message out of turn")),
        }
    }

    fn join(
        &mut self,
        id: u64,
        request: JoinRequest,
        file: Option<ForeignFile>,
    ) -> Result<(), Dropped> {
        let Some(client) = self.clients.get_mut(id) else {
            return Ok(());
        };
        let report = Arc::new(FailureReport::of(&self.report, &client.connection));
        // Given back when the client is dropped, whatever becomes of the request.
        match self.files.take(request.vcpus.len(), client.peer.uid == 0) {
            Ok(files) => client.files = files,
            Err(none_left) => {
                client.answer(Err(Refusal::new(none_left)))?;
                return Err(Dropped(Departure::Gone));
            }
        }
        let wakes = WakeFile::new().map_err(Dropped::failed)?;
        wakes
            .watch(&self.epoll, 2 * id + 1)
            .map_err(Dropped::failed)?;
        let joined = self
            .service
            .join(&client.peer, &client.connection, request, file, report);
        let number = match joined {
            Ok(number) => number,
            Err(refusal) => {
                // It may try again with less, on a new connection.
                client.answer(Err(refusal))?;
                return Err(Dropped(Departure::Gone));
            }
        };

        // From now on the process notices if the pool hangs.
        self.service.handle.beat(Some(number));
        let admitted = PoolMessage::Admitted { guest: number };
        let sent = client.connection.send(&admitted, Some(wakes.as_fd()));
        let limit = WakeLimit::new(sys::monotonic_ns());
        client.phase = Phase::Joined {
            number,
            wakes,
            limit,
        };
        sent.map_err(|_| Dropped(Departure::Gone))?;
        let with_priority = self.service.handle.cpus_with_priority();
        if !with_priority.is_empty() {
            // A process that does not read does without.
            let _ = (client.connection).send(&PoolMessage::Priority(with_priority), None);
        }
        Ok(())
    }

    fn drop_client(&mut self, id: u64, how: Departure) {
        let Some(client) = self.clients.remove(id) else {
            return;
        };
        self.files.give_back(client.files);
        // The service may keep the connection for a moment.
        let _ = epoll::delete(&self.epoll, &*client.connection);
        if let Phase::Joined { wakes, .. } = &client.phase {
            // The process has the file, too, so closing it here would not be enough.
            let _ = epoll::delete(&self.epoll, wakes);
        }
        match client.guest() {
            Some(number) => self.service.depart(number, how),
            None => {
                let Peer { pid, uid, .. } = client.peer;
                if let Departure::Failed(reason) = how
                    && self.service.events.may_log(uid)
                {
                    tracing::warn!(pid, uid, reason, "a process that has not joined is dropped");
                }
            }
        }
    }
}

impl Client {
    fn greet(&mut self, protocol: u32) -> Result<(), Dropped> {
        if protocol != PROTOCOL {
            let reason = format!(
                "the pool speaks protocol {PROTOCOL} and the guest's process {protocol}; use the same version of \
                 baton for both"
            );
            self.answer(Err(Refusal::new(reason)))?;
            return Err(Dropped(Departure::Gone));
        }
        self.phase = Phase::Greeted;
        self.answer(Ok(PoolMessage::Welcome { protocol: PROTOCOL }))
    }

    /// Sends `answer`. A process that leaves its answers unread is dropped.
    fn answer(&self, answer: Result<PoolMessage, Refusal>) -> Result<(), Dropped> {
        let message = answer.unwrap_or_else(|Refusal { reason, would_fit }| PoolMessage::Refused {
            reason,
            would_fit,
        });
        let sent = self.connection.send(&message, None);
        sent.map_err(Dropped::failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_why_a_process_was_dropped_is_short_and_printable_whatever_it_has_sent() {
        let text = format!("{{\"{}\":1}}", "\u{1b}[2J\n".repeat(10_000));
        let error = serde_json::from_str::<GuestMessage>(
            &text.replace('\n', "\\n").replace('\u{1b}', "\\u001b"),
        );
        let error = error.expect_err("no message").to_string();
        assert!(error.len() > MAX_REASON && error.contains('\u{1b}'));
        let Dropped(Departure::Failed(reason)) = Dropped::failed(error) else {
            panic!("it has failed");
        };
        assert!(reason.len() <= 4 * MAX_REASON && !reason.chars().any(char::is_control));
    }
}
