//! Processes of guests at the link socket.

mod common;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use baton_link::LinkError;
use baton_link::connection::{Connection, ConnectionError, Patience};
use baton_link::join::Admission;
use baton_link::message::{
    Change, GuestEnded, GuestMessage, Order, PROTOCOL, PoolMessage, ReservationRequest, Share,
};
use baton_service::grants::{GrantTerms, Grantee, Grants};
use baton_service::places::LINK_SOCKET;
use common::{NOBODY, Sockets, TestService, as_user, join_request, until};

fn received(connection: &Connection) -> Result<PoolMessage, ConnectionError> {
    connection.receive(Patience::Wait)?.without_file()
}

/// Whether the pool has closed the connection, after what it has sent.
fn is_closed(connection: &Connection) -> bool {
    loop {
        match connection.receive::<PoolMessage>(Patience::Wait) {
            Ok(_) => {}
            Err(ConnectionError::Closed) => return true,
            Err(_) => return false,
        }
    }
}

#[test]
fn a_guest_joins_is_listed_changes_itself_takes_orders_and_leaves() {
    let pool = TestService::start("joins", Vec::new());
    let client = pool.client();
    let (connection, admission) = pool
        .join(join_request("web", Some("2ms/10ms")))
        .expect("admitted");
    let guest = client.guest("web").expect("it is there");
    assert_eq!(guest.pid, Some(std::process::id() as i32));
    assert_eq!(guest.uid, Some(rustix::process::geteuid().as_raw()));
    assert_eq!(guest.hints, "page");

    admission.wakes.report();
    until("the wake is reported", || {
        pool.calls.wakes.load(Ordering::Relaxed) == 1
    });

    let share = |budget_ns| Share {
        reservation: Some(ReservationRequest {
            budget_ns,
            period_ns: 10_000_000,
            deadline_ns: 10_000_000,
            hard: true,
        }),
        host_cpus: None,
        weight: None,
    };
    let change = |budget_ns| {
        GuestMessage::Change(Change {
            weight: None,
            vcpu: Some((0, share(budget_ns))),
        })
    };
    connection.send(&change(5_000_000), None).expect("sent");
    assert_eq!(
        received(&connection).expect("what it joins again with"),
        PoolMessage::Claims(vec![share(5_000_000)])
    );
    assert_eq!(
        received(&connection).expect("an answer"),
        PoolMessage::Changed
    );
    assert_eq!(client.guest("web").expect("there").reserved_cpus, 0.5);
    connection.send(&change(10_000_000), None).expect("sent");
    let refused = received(&connection).expect("an answer");
    assert!(
        matches!(
            &refused,
            PoolMessage::Refused {
                would_fit: Some(_),
                ..
            }
        ),
        "{refused:?}"
    );

    for (word, order) in [
        ("power-button", Order::PowerButton),
        ("power-off", Order::PowerOff),
        ("reset", Order::Reset),
    ] {
        client.order("web", word).expect("it takes orders");
        assert_eq!(
            received(&connection).expect("an order"),
            PoolMessage::Order(order)
        );
    }

    let hints = GuestMessage::Hints {
        source: "inferred (preempt count)".to_owned(),
    };
    connection.send(&hints, None).expect("sent");
    until("the hints are known", || {
        client
            .guest("web")
            .is_ok_and(|guest| guest.hints == "inferred (preempt count)")
    });
    let ended = GuestEnded {
        ok: true,
        text: "it switched itself off".to_owned(),
    };
    connection
        .send(&GuestMessage::Leave(ended), None)
        .expect("sent");
    until("it leaves", || client.guest("web").is_err());
    assert!(is_closed(&connection));
}

#[test]
fn reports_of_wakes_without_end_are_left_unread_for_moments_and_the_last_is_read() {
    let pool = TestService::start("wakes", Vec::new());
    let joined = pool.join(join_request("web", None));
    let (_connection, admission) = joined.expect("admitted");
    let read = || pool.calls.wakes.load(Ordering::Relaxed);
    let began = Instant::now();
    (0..100_000).for_each(|_| admission.wakes.report());
    let in_loop = read();
    let ms = began.elapsed().as_millis() as usize;
    // A burst, one each ms, and one for each pause.
    assert!(in_loop <= 300 + 2 * ms, "{in_loop} in {ms} ms");
    admission.wakes.report();
    until("the last one is read", || read() > in_loop);
}

#[test]
fn a_guest_whose_connection_closes_leaves_and_its_name_is_free_again() {
    let pool = TestService::start("closes", Vec::new());
    let client = pool.client();
    // What a guest had reserved is in use until its deadline, so the next may have to wait.
    let join = |name: &str| {
        let mut joined = None;
        until("it joins", || {
            joined = pool.join(join_request(name, Some("9ms/10ms"))).ok();
            joined.is_some()
        });
        joined
    };
    for _ in 0..20 {
        let connection = join("web");
        let taken = pool
            .join(join_request("web", None))
            .expect_err("taken")
            .to_string();
        assert!(taken.contains("has a guest of this name"), "{taken}");
        drop(connection);
        until("it leaves", || client.guest("web").is_err());
    }
}

#[test]
fn a_process_that_breaks_the_order_of_messages_is_dropped() {
    let pool = TestService::start("order", Vec::new());
    let hello = |protocol| GuestMessage::Hello { protocol };
    let change = GuestMessage::Change(Change {
        weight: Some(5),
        vcpu: None,
    });
    for first in [GuestMessage::Join(join_request("web", None)), change] {
        let connection = pool.link();
        connection.send(&first, None).expect("sent");
        assert!(is_closed(&connection));
    }
    let twice = pool.link();
    for _ in 0..2 {
        twice.send(&hello(PROTOCOL), None).expect("sent");
    }
    assert!(is_closed(&twice));
    let other = pool.link();
    other.send(&hello(PROTOCOL + 1), None).expect("sent");
    let refused = received(&other).expect("an answer");
    assert!(
        matches!(&refused, PoolMessage::Refused { reason, .. } if reason.contains("same version"))
    );
    assert!(is_closed(&other));
    let with_file = pool.link();
    let file = std::fs::File::open("/dev/null").expect("a file");
    with_file
        .send(&hello(PROTOCOL), Some(file.as_fd()))
        .expect("sent");
    assert!(is_closed(&with_file));
    let without_pages = pool.link();
    without_pages.send(&hello(PROTOCOL), None).expect("sent");
    received(&without_pages).expect("welcome");
    without_pages
        .send(&GuestMessage::Join(join_request("web", None)), None)
        .expect("sent");
    assert!(matches!(
        received(&without_pages),
        Ok(PoolMessage::Refused { .. })
    ));
    assert!(
        pool.client()
            .guests()
            .expect("it answers")
            .guests
            .is_empty()
    );
}

/// Another process, which joins the pool as `name` and then does what the ignored test `part` has.
fn other_process(pool: &Sockets, part: &str) -> Child {
    let own = std::env::current_exe().expect("this program");
    let mut command = Command::new(own);
    command
        .args(["--ignored", "--exact", part])
        .env(DIRECTORY, &pool.directory);
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts")
}

/// The variable that names the directory of the pool to another process.
const DIRECTORY: &str = "BATON_TEST_POOL";

/// The guest of another process.
fn joined_elsewhere(name: &str) -> (Connection, Admission) {
    let directory = std::env::var_os(DIRECTORY).expect("a pool");
    let sockets = Sockets {
        calls: Arc::default(),
        directory: directory.into(),
    };
    sockets.join(join_request(name, None)).expect("admitted")
}

#[test]
#[ignore = "a part of a test, in another process"]
fn floods_the_link() {
    let (connection, _admission) = joined_elsewhere("floods");
    let hints = GuestMessage::Hints {
        source: "page".to_owned(),
    };
    loop {
        // No room means that the pool has not read it yet.
        let _ = connection.send(&hints, None);
    }
}

#[test]
#[ignore = "a part of a test, in another process"]
fn joins_and_waits() {
    let (connection, _admission) = joined_elsewhere("waits");
    let _ = is_closed(&connection);
    loop {
        std::thread::park();
    }
}

#[test]
fn a_process_that_floods_the_link_is_killed_and_others_stay() {
    let pool = TestService::start("floods", Vec::new());
    let client = pool.client();
    let (_stays, _) = pool.join(join_request("stays", None)).expect("admitted");
    let mut floods = other_process(&pool, "floods_the_link");
    let ended = floods.wait().expect("a child");
    assert_eq!(ended.signal(), Some(libc::SIGKILL));
    until("it leaves", || client.guest("floods").is_err());
    assert!(client.guest("stays").is_ok());
}

#[test]
fn a_guest_that_an_executor_reports_is_dropped_and_its_process_killed() {
    let pool = TestService::start("reported", Vec::new());
    let client = pool.client();
    let mut waits = other_process(&pool, "joins_and_waits");
    until("it joins", || client.guest("waits").is_ok());
    let report = pool.calls.reports.lock().expect("no panic")[0].clone();
    report.failed(77, &LinkError::Gone);
    assert!(client.guest("waits").is_ok(), "that is another guest");
    report.failed(0, &LinkError::Gone);
    let ended = waits.wait().expect("a child");
    assert_eq!(ended.signal(), Some(libc::SIGKILL));
    until("it leaves", || client.guest("waits").is_err());
}

#[test]
fn a_guest_is_killed_by_the_api_and_leaves() {
    let pool = TestService::start("killed", Vec::new());
    let client = pool.client();
    let mut waits = other_process(&pool, "joins_and_waits");
    until("it joins", || client.guest("waits").is_ok());
    client.kill("waits").expect("it is there");
    let ended = waits.wait().expect("a child");
    assert_eq!(ended.signal(), Some(libc::SIGKILL));
    until("it leaves", || client.guest("waits").is_err());
}

#[test]
fn processes_that_connect_and_are_silent_leave_room_for_others_and_are_dropped() {
    let service = TestService::start("silent", Vec::new());
    let pool = &*service;
    let silent = as_user(NOBODY, || (0..100).map(|_| pool.link()).collect::<Vec<_>>());
    let (_guest, _) = pool.join(join_request("web", None)).expect("there is room");
    // Most at once, the others when their time is over.
    for connection in silent.into_iter().flatten() {
        assert!(is_closed(&connection));
    }
    assert!(pool.client().guest("web").is_ok());
}

#[test]
fn a_name_is_kept_for_its_user_whose_guest_may_join_again_and_nobody_takes_it() {
    let grants = vec![(Grantee::User(NOBODY), GrantTerms::default())];
    let service = TestService::start("names", grants);
    let pool = &*service;
    let join = |name: &str| pool.join(join_request(name, None));
    let joined = || as_user(NOBODY, || join("web"));
    let Some(connection) = joined() else {
        return;
    };
    let client = pool.client();
    let refused = join("web").expect_err("another user's").to_string();
    assert!(refused.contains("has a guest of this name"), "{refused}");
    drop(connection);
    until("its name is kept", || {
        let refused = join("web").expect_err("another user's").to_string();
        client.guest("web").is_err() && refused.contains("may join again")
    });
    let again = joined().expect("root runs this");
    let (connection, _) = again.expect("the name is its user's");
    let ended = GuestEnded {
        ok: true,
        text: "done".to_owned(),
    };
    connection
        .send(&GuestMessage::Leave(ended), None)
        .expect("sent");
    assert!(is_closed(&connection));
    until("the name of a guest that has ended is free", || {
        join("web").is_ok()
    });
}

#[test]
fn a_process_whose_hints_change_without_end_is_told_of_a_few_times_and_the_last_are_listed() {
    let pool = TestService::start("hints", Vec::new());
    let (connection, _) = pool.join(join_request("web", None)).expect("admitted");
    let mut events = pool.service.events().follow();
    // Not more than may be sent at once.
    for number in 1..=28 {
        let source = format!("source {number}");
        let hints = GuestMessage::Hints { source };
        connection.send(&hints, None).expect("sent");
    }
    let client = pool.client();
    let last = || client.guest("web").expect("there").hints == "source 28";
    until("the last are listed", last);
    let told = (0..100).filter(|_| events.try_recv().is_ok()).count();
    assert!((1..=8).contains(&told), "{told}");
}

#[test]
fn grants_that_are_read_again_are_in_force_at_once() {
    let pool = TestService::start("grants", Vec::new());
    let lists = |sockets: &Sockets| as_user(NOBODY, || sockets.request("GET", "/v1/guests", "").0);
    let Some(status) = lists(&pool) else { return };
    assert_eq!(status, 403);
    let own = rustix::process::geteuid().as_raw();
    let grants = vec![(Grantee::User(NOBODY), GrantTerms::default())];
    pool.service.set_grants(Grants::new(own, grants));
    assert_eq!(lists(&pool), Some(200));
    pool.service.set_grants(Grants::new(own, Vec::new()));
    assert_eq!(lists(&pool), Some(403));
}

#[test]
fn a_pool_that_makes_no_progress_admits_no_guest_until_it_does() {
    let pool = TestService::start("hung", Vec::new());
    pool.service.set_works(false);
    let refused = pool.join(join_request("web", None)).expect_err("it hangs");
    assert!(refused.to_string().contains("no progress"), "{refused}");
    pool.service.set_works(true);
    pool.join(join_request("web", None)).expect("it works");
}

/// In another process, for it leaves that without files.
#[test]
#[ignore = "a part of a test, in another process"]
fn runs_out_of_files() {
    let pool = TestService::start("files", Vec::new());
    let (_guest, admission) = pool.join(join_request("web", None)).expect("admitted");
    let path = pool.directory.join(LINK_SOCKET);
    let address = rustix::net::SocketAddrUnix::new(&path).expect("a path");
    let sockets: Vec<_> = (0..40)
        .map(|_| {
            let (family, kind) = (
                rustix::net::AddressFamily::UNIX,
                rustix::net::SocketType::SEQPACKET,
            );
            rustix::net::socket(family, kind, None).expect("a socket")
        })
        .collect();
    let mut fills = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        fills.push(file);
    }
    // Kept open, so that no file becomes free.
    let connections = sockets.into_iter().map(Connection::from);
    let connections: Vec<_> = connections.collect();
    for connection in &connections {
        rustix::net::connect(connection, &address).expect("it listens");
        assert!(is_closed(connection));
        let before = pool.calls.wakes.load(Ordering::Relaxed);
        admission.wakes.report();
        until("the wake is reported", || {
            pool.calls.wakes.load(Ordering::Relaxed) > before
        });
    }
    drop(fills);
    pool.join(join_request("db", None))
        .expect("there is room again");
}

#[test]
fn a_connection_for_which_no_file_is_left_is_closed_and_wakes_are_reported_meanwhile() {
    let own = std::env::current_exe().expect("this program");
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            "ulimit -n 512; exec \"$0\" --ignored --exact runs_out_of_files",
        ])
        .arg(own);
    let output = command.output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
}

#[test]
fn files_of_all_kinds_in_place_of_the_pages_are_refused_and_closed() {
    let pool = TestService::start("kinds", Vec::new());
    let open = || std::fs::read_dir("/proc/self/fd").expect("files").count();
    let foreign: [fn() -> OwnedFd; 5] = [
        || std::fs::File::open("/dev/null").expect("a file").into(),
        || rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).expect("an event"),
        || rustix::pipe::pipe().expect("a pipe").0,
        || {
            std::os::unix::net::UnixStream::pair()
                .expect("sockets")
                .0
                .into()
        },
        || {
            let flags = rustix::fs::MemfdFlags::ALLOW_SEALING;
            let file = rustix::fs::memfd_create("unsealed", flags).expect("a file");
            rustix::fs::ftruncate(&file, 4096).expect("grown");
            file
        },
    ];
    let refuse_all = || {
        for make in foreign {
            let connection = pool.link();
            let hello = GuestMessage::Hello { protocol: PROTOCOL };
            connection.send(&hello, None).expect("sent");
            received(&connection).expect("welcome");
            let (file, join) = (make(), GuestMessage::Join(join_request("web", None)));
            connection.send(&join, Some(file.as_fd())).expect("sent");
            assert!(matches!(
                received(&connection),
                Ok(PoolMessage::Refused { .. })
            ));
            assert!(is_closed(&connection));
        }
    };
    refuse_all();
    let before = open();
    (0..20).for_each(|_| refuse_all());
    // Other tests of this process have files, too, so only a leak of each time shows.
    until("the files are closed", || open() < before + 100);
    pool.join(join_request("web", None)).expect("there is room");
}

#[test]
fn guests_are_told_that_the_pool_goes_away() {
    let pool = TestService::start("goes", Vec::new());
    let (connection, _) = pool.join(join_request("web", None)).expect("admitted");
    drop(pool);
    assert_eq!(
        received(&connection).expect("a message"),
        PoolMessage::GoingAway { restarts: true }
    );
    assert!(is_closed(&connection));
}
