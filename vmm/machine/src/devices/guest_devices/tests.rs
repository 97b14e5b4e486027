use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use virtio_bindings::virtio_mmio::VIRTIO_MMIO_STATUS;

use super::super::virtio::test_support::transport_of;
use super::super::virtio::{Features, Queues};
use super::*;

/// A device that hangs when the driver starts it, like one on a host disk that does not respond.
struct Hung {
    hangs: Sender<()>,
    may_go_on: Receiver<()>,
}

impl VirtioDevice for Hung {
    fn device_id(&self) -> u32 {
        2
    }

    fn features(&self) -> Features {
        Features::default()
    }

    fn queue_count(&self) -> usize {
        1
    }

    fn config_space(&self) -> Vec<u8> {
        Vec::new()
    }

    fn process_queue(&mut self, _: usize, _: &mut Queues) {}

    fn on_restart(&mut self, _: &Queues) {
        self.hangs.send(()).expect("the test receives it");
        // The end of the test closes the channel, which ends this wait too.
        let _ = self.may_go_on.recv();
    }
}

#[test]
fn a_device_that_hangs_keeps_no_other_of_its_guest_from_ending() {
    let (hangs, hung_now) = channel();
    let (go_on, may_go_on) = channel();
    let hung = transport_of(Box::new(Hung { hangs, may_go_on }));
    // A reset restarts the device.
    hung.write(VIRTIO_MMIO_STATUS.into(), &[0; 4]);
    hung_now.recv().expect("it hangs");
    let (lives, gone) = channel();
    let (_, never) = channel();
    let other = transport_of(Box::new(Hung {
        hangs: lives,
        may_go_on: never,
    }));
    let devices = Devices {
        transports: vec![hung, other],
    };
    let ends = thread::spawn(move || drop(devices));
    let gone = gone.recv_timeout(Duration::from_secs(60));
    assert_eq!(gone, Err(RecvTimeoutError::Disconnected));
    assert!(!ends.is_finished());
    go_on.send(()).expect("it waits");
    ends.join().expect("no panic");
}
