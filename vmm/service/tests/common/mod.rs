//! A pool with its sockets in this process. Guests that join by the link are guests of this process all the same, so
//! that all but the hand-over is as in a service.

// Each test program uses a part of this.
#![allow(dead_code)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton_config::{ExecutorPriority, GuestConfig, LateHalts, RunConfig};
use baton_host::executor::{self, PoolHandle, ProcessReport};
use baton_host::runner::{ReadyGuest, Runner};
use baton_link::connection::Connection;
use baton_link::foreign_process::ForeignProcess;
use baton_link::join::{Admission, JoinError, JoinedGuest, request};
use baton_link::message::{GuestEnded, JoinRequest, Share, VcpuRequest};
use baton_link::pages::GuestPages;
use baton_machine::guest::GuestWiring;
use baton_machine::reaper::ReaperThread;
use baton_machine::{Guest, kvm};
use baton_os::cpu_owner::OwnedCpus;
use baton_os::signals::RtSignal;
use baton_service::api_server::ApiServer;
use baton_service::client::Client;
use baton_service::grants::{GrantTerms, Grantee, Grants};
use baton_service::host_cpus::HostCpus;
use baton_service::link_server::LinkServer;
use baton_service::names::Names;
use baton_service::places::{API_SOCKET, LINK_SOCKET, create};
use baton_service::process_pool::{LeftBehind, ProcessPool, Refusal};
use baton_service::service::Service;
use kvm_ioctls::Kvm;
use serde_json::Value;

/// Another user than root, in tests that root runs.
pub const NOBODY: u32 = 65_534;

/// Makes guests.
struct Maker {
    kvm: Kvm,
    reaper: ReaperThread,
    made: AtomicUsize,
}

impl Maker {
    fn guest(&self, config: GuestConfig) -> ReadyGuest {
        let wiring = GuestWiring {
            builtin: guest_tests::GUEST_ELF,
            reaper: self.reaper.reaper(),
            ..GuestWiring::default()
        };
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let made = Guest::create_with(&self.kvm, number, &config, wiring);
        let (guest, vcpus) = made.expect("a guest");
        ReadyGuest {
            guest,
            config,
            vcpus,
        }
    }
}

/// What the pool of the tests has been called with.
#[derive(Default)]
pub struct Calls {
    pub reports: Mutex<Vec<Arc<dyn ProcessReport>>>,
    pub wakes: AtomicUsize,
    names: Mutex<HashMap<u64, String>>,
    numbers: AtomicUsize,
}

/// Runs guests of other processes as guests of this one.
struct Stub {
    handle: PoolHandle,
    maker: Arc<Maker>,
    calls: Arc<Calls>,
}

impl ProcessPool for Stub {
    fn join(
        &self,
        joined: JoinedGuest,
        request: &JoinRequest,
        _process: (ForeignProcess, vcpu_sched::Ns),
        report: Arc<dyn ProcessReport>,
    ) -> Result<u64, Refusal> {
        let mut config = config(&request.name, joined.vcpus.len());
        config.weight = request.weight;
        let shares = joined.vcpus.iter().map(|vcpu| &vcpu.share);
        config.reservations = shares.clone().map(|share| share.reservation).collect();
        config.host_cpus = shares.map(|share| share.host_cpus.clone()).collect();
        self.handle
            .join(self.maker.guest(config))
            .map_err(|refused| Refusal {
                reason: refused.error.to_string(),
                would_fit: None,
            })?;
        let number = self.calls.numbers.fetch_add(1, Ordering::Relaxed) as u64;
        self.calls
            .names
            .lock()
            .expect("no panic")
            .insert(number, request.name.clone());
        self.calls.reports.lock().expect("no panic").push(report);
        Ok(number)
    }

    fn process_gone(&self, number: u64, _ended: Option<GuestEnded>) -> LeftBehind {
        let name = self.calls.names.lock().expect("no panic").remove(&number);
        name.map_or_else(LeftBehind::default, |name| {
            self.handle.leave(&name).expect("it is there").into()
        })
    }

    fn hints_reported(&self, _number: u64, _source: &str) {}

    fn restarting(&self, _: u64) {}

    fn restarted(&self, _: u64, _: u32) {}

    fn wake_reported(&self, _number: u64) -> usize {
        self.calls.wakes.fetch_add(1, Ordering::Relaxed);
        0
    }
}

/// A pool on one host CPU, whose guests spin.
pub struct TestService {
    api: Option<ApiServer>,
    link: Option<LinkServer>,
    pub handle: PoolHandle,
    pub service: Arc<Service>,
    runner: Option<Box<dyn Runner>>,
    maker: Arc<Maker>,
    sockets: Sockets,
}

/// What a thread needs that is a client.
pub struct Sockets {
    pub calls: Arc<Calls>,
    pub directory: PathBuf,
}

impl std::ops::Deref for TestService {
    type Target = Sockets;

    fn deref(&self) -> &Sockets {
        &self.sockets
    }
}

/// A guest of `cpus` vCPUs that does not end.
pub fn config(name: &str, cpus: usize) -> GuestConfig {
    let mut config = GuestConfig::new(name).with_cpus(cpus);
    config.cmdline = "seconds=0".to_owned();
    config.memory = 16 << 20;
    config
}

impl TestService {
    /// Starts it for the test called `name`, with these grants besides root's.
    pub fn start(name: &str, grants: Vec<(Grantee, GrantTerms)>) -> Self {
        let mut host_cpus = baton_os::sys::affinity().expect("the affinity of this process");
        host_cpus.truncate(1);
        let run = RunConfig {
            late_halts: LateHalts::Allow,
            quiet: true,
            ..RunConfig::default()
        };
        let all = baton_os::sys::affinity().expect("the affinity of this process");
        let others: Vec<usize> = all.iter().copied().skip(1).collect();
        let (runner, reader, pool_cpus) =
            executor::start_pool(&run, (&host_cpus, &others), ExecutorPriority::Off)
                .expect("a pool");
        let handle = runner.pool().expect("executors have a pool");
        let maker = Arc::new(Maker {
            kvm: kvm::open().expect("KVM"),
            reaper: ReaperThread::spawn().expect("a thread"),
            made: AtomicUsize::new(0),
        });
        let calls = Arc::new(Calls::default());
        let stub = Stub {
            handle: handle.clone(),
            maker: Arc::clone(&maker),
            calls: Arc::clone(&calls),
        };
        let own = rustix::process::geteuid().as_raw();
        let grants = Grants::new(own, grants);
        // Tests own no host CPUs, for several run at once.
        let host_cpus = HostCpus::new(pool_cpus, None, OwnedCpus::default(), ExecutorPriority::Off);
        let all = baton_os::sys::affinity().expect("the affinity of this process");
        let directory = std::env::temp_dir().join(format!("baton-{name}-{}", std::process::id()));
        create(&directory).expect("a directory");
        let names = Names::load(&directory, baton_os::sys::monotonic_ns());
        let stub = Box::new(stub);
        let service = Service::new(handle.clone(), reader, stub, grants, names, host_cpus);
        let link = LinkServer::start(&directory.join(LINK_SOCKET), &service, &all).expect("a link");
        let api = ApiServer::start(&directory.join(API_SOCKET), &service, &all).expect("an API");
        Self {
            api: Some(api),
            link: Some(link),
            handle,
            service,
            runner: Some(runner),
            maker,
            sockets: Sockets { calls, directory },
        }
    }

    /// Has a guest of the pool's own process join.
    pub fn join_own(&self, config: GuestConfig) {
        if let Err(refused) = self.handle.join(self.maker.guest(config)) {
            panic!("{}", refused.error);
        }
    }
}

impl Sockets {
    pub fn client(&self) -> Client {
        Client::new(Some(&self.directory)).expect("a pool")
    }

    /// Connects to the socket of the API.
    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.directory.join(API_SOCKET)).expect("it listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(120)))
            .expect("a timeout");
        stream
    }

    /// Sends `bytes`, and returns all that comes back.
    pub fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // The server may close before it has all.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The status and the body of the answer to a request of this process.
    pub fn request(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let length = body.len();
        answer(
            &self.raw(
                format!(
                    "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"
                )
                .as_bytes(),
            ),
        )
    }

    /// Connects to the link.
    pub fn link(&self) -> Connection {
        Connection::connect(&self.directory.join(LINK_SOCKET)).expect("it listens")
    }

    /// Has a guest join by the link as this process would.
    pub fn join(&self, wanted: JoinRequest) -> Result<(Connection, Admission), JoinError> {
        let connection = self.link();
        let (_pages, file) = GuestPages::create(wanted.vcpus.len() as u32).expect("pages");
        let admission = request(&connection, wanted, &file)?;
        Ok((connection, admission))
    }
}

impl Drop for TestService {
    fn drop(&mut self) {
        drop(self.link.take());
        drop(self.api.take());
        if let Some(runner) = self.runner.take() {
            runner.stop();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// What a guest of one vCPU requests, whose thread is the calling one.
pub fn join_request(name: &str, reservation: Option<&str>) -> JoinRequest {
    let reservation = reservation.map(|text| {
        let reservation: vcpu_sched::Reservation = text.parse().expect("a reservation");
        baton_link::message::ReservationRequest {
            budget_ns: reservation.budget(),
            period_ns: reservation.period(),
            deadline_ns: reservation.deadline(),
            hard: true,
        }
    });
    JoinRequest {
        name: name.into(),
        console: None,
        hints: "page".into(),
        weight: 100,
        kick_signal: RtSignal::ExecutorKick.number(),
        restarts: 0,
        is_paused: false,
        vcpus: vec![VcpuRequest {
            tid: baton_os::sys::thread_id(),
            share: Share {
                reservation,
                host_cpus: None,
                weight: None,
            },
        }],
    }
}

/// The status and the body of an answer.
pub fn answer(text: &str) -> (u16, Value) {
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (
        status.unwrap_or_default(),
        serde_json::from_str(body).unwrap_or_default(),
    )
}

/// Does `action` on a thread that has become another user for the kernel, without any group but his own. Only for
/// tests that root runs: returns `None` for others.
pub fn as_user<T: Send>(uid: u32, action: impl FnOnce() -> T + Send) -> Option<T> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    std::thread::scope(|scope| {
        let become_user = move || {
            use rustix::process::{Gid, Uid};
            rustix::thread::set_thread_groups(&[]).expect("no groups");
            rustix::thread::set_thread_gid(Gid::from_raw(uid)).expect("a group");
            rustix::thread::set_thread_uid(Uid::from_raw(uid)).expect("a user");
            action()
        };
        let thread = scope.spawn(become_user);
        Some(thread.join().expect("no panic"))
    })
}

/// Waits until `is_so`, which `what` describes. Only what hangs takes minutes.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "this does not happen: {what}"
        );
        std::thread::yield_now();
    }
}

/// The path of a document of the tree.
pub fn document(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(name)
}
