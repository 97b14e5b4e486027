use std::fs::File;
use std::thread;

use baton_os::signals::RtSignal;
use baton_os::sys;

use super::*;
use crate::message::{Share, VcpuRequest};
use crate::wake_file::WakeFile;

fn join_request() -> JoinRequest {
    JoinRequest {
        name: "web".into(),
        console: None,
        hints: String::new(),
        weight: 100,
        kick_signal: RtSignal::ExecutorKick.number(),
        restarts: 0,
        is_paused: false,
        vcpus: vec![VcpuRequest {
            tid: sys::thread_id(),
            share: Share::default(),
        }],
    }
}

/// A pool that serves one connection: the answer to hello, and what it makes of the request.
fn serve(pool: &Connection) -> Result<JoinedGuest, JoinError> {
    let hello: GuestMessage = pool.receive(Patience::Wait)?.without_file()?;
    assert_eq!(hello, GuestMessage::Hello { protocol: PROTOCOL });
    pool.send(&PoolMessage::Welcome { protocol: PROTOCOL }, None)?;
    let process = ForeignProcess::of_peer(pool)?;
    let received = pool.receive(Patience::Wait)?;
    let GuestMessage::Join(request) = received.message else {
        return Err(JoinError::Protocol);
    };
    let joined = accept(&process, &request, received.file);
    match &joined {
        Ok(_) => {
            let wakes = WakeFile::new().expect("a file");
            pool.send(&PoolMessage::Admitted { guest: 4 }, Some(wakes.as_fd()))?;
        }
        Err(error) => {
            let reason = error.to_string();
            let would_fit = Some("one that fits".into());
            pool.send(&PoolMessage::Refused { reason, would_fit }, None)?;
        }
    }
    joined
}

fn join(
    change: impl FnOnce(&mut JoinRequest),
    file: &OwnedFd,
) -> (Result<Admission, JoinError>, Result<JoinedGuest, JoinError>) {
    let (guest, pool) = Connection::pair().expect("sockets");
    let pool = thread::spawn(move || serve(&pool));
    let mut wanted = join_request();
    change(&mut wanted);
    let admission = request(&guest, wanted, file);
    (admission, pool.join().expect("a thread"))
}

#[test]
fn a_guest_that_joins_is_admitted_with_a_way_to_each_vcpu() {
    let (_pages, file) = GuestPages::create(1).expect("pages");
    let (admission, joined) = join(|_| {}, &file);
    assert_eq!(admission.expect("admitted").guest, 4);
    let joined = joined.expect("joined");
    assert_eq!(joined.vcpus.len(), 1);
    assert!(joined.vcpus[0].clock.ran_ns().is_ok());
}

#[test]
fn a_guest_that_is_refused_gets_the_reason_and_what_would_fit() {
    let (_pages, file) = GuestPages::create(1).expect("pages");
    let (admission, joined) = join(|request| request.vcpus[0].tid = 1, &file);
    assert!(matches!(
        joined,
        Err(JoinError::Foreign(ForeignError::NoThread { .. }))
    ));
    let text = admission.expect_err("refused").to_string();
    assert!(
        text.contains("no thread 1") && text.ends_with("; one that fits"),
        "{text}"
    );
}

#[test]
fn a_file_that_has_no_pages_is_refused() {
    let device: OwnedFd = File::open("/dev/zero").expect("a device").into();
    let (_, joined) = join(|_| {}, &device);
    assert!(matches!(
        joined,
        Err(JoinError::Connection(ConnectionError::Files))
    ));
    let (_pages, two) = GuestPages::create(2).expect("pages");
    let (_, joined) = join(|_| {}, &two);
    assert!(matches!(
        joined,
        Err(JoinError::Pages(PagesError::Size { .. }))
    ));
}
