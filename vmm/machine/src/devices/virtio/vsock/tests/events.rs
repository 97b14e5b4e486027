//! When the device's thread is woken.

use std::io::Write;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::super::super::device::VirtioDevice;
use super::harness::{TestGuest, drain};

#[test]
fn each_event_wakes_the_thread_once() {
    let mut guest = TestGuest::new();
    let mut program = guest.connected();
    guest.vsock.on_host_event(&mut guest.queues);
    // The thread watches the file in this way.
    let epoll = Epoll::new().expect("an epoll");
    let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
    epoll
        .ctl(ControlOperation::Add, guest.host_event(), event)
        .expect("watched");
    let woken = || {
        let mut events = [EpollEvent::default()];
        epoll.wait(0, &mut events).expect("waits") == 1
    };
    assert!(!woken());
    for _ in 0..3 {
        program.write_all(b"data").expect("room");
        assert!(woken());
        guest.vsock.on_host_event(&mut guest.queues);
        assert!(!woken());
    }
    // That a program reads is an event only if bytes wait for room.
    guest.send_data(b"data");
    assert_eq!(drain(&program).0, b"data");
    assert!(!woken());
    while guest.next().is_some() {}
    guest.overfill_socket(4);
    drain(&program);
    assert!(woken());
    guest.vsock.on_host_event(&mut guest.queues);
    assert!(!drain(&program).0.is_empty());
    guest.vsock.on_host_event(&mut guest.queues);
    assert!(!guest.has_host_event());
    let _other = guest.program(b"CONNECT 52\n");
    assert!(woken());
}
