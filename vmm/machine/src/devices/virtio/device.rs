//! What distinguishes one kind of virtio device from another.

use std::os::fd::RawFd;

use super::features::Features;
use super::queues::Queues;

/// One kind of device: what it offers, and how it processes its queues. Once the device has a thread, all
/// methods are called on that thread.
pub(crate) trait VirtioDevice: Send {
    /// Virtio's number of the kind.
    fn device_id(&self) -> u32;

    /// The features that the device offers, besides those of the transport.
    fn features(&self) -> Features;

    /// The number of queues, at most 32.
    fn queue_count(&self) -> usize;

    /// The configuration space, which the driver reads.
    fn config_space(&self) -> Vec<u8>;

    /// Processes what the driver has put into queue `index`. Where a request does not fit yet, or the queue is
    /// never empty, some requests may stay in it: see [`Queues::for_each_request`].
    fn process_queue(&mut self, index: usize, queues: &mut Queues);

    /// A file that becomes readable when queue `index`, in which requests had to stay because of a rate
    /// limit, is to be processed again. The file is reported once each time.
    fn rate_limit_timer(&self, _index: usize) -> Option<RawFd> {
        None
    }

    /// A file that becomes readable when the host has something for the device. The file is reported once each
    /// time.
    fn host_event(&self) -> Option<RawFd> {
        None
    }

    /// The file of [`Self::host_event`] has become readable.
    fn on_host_event(&mut self, _queues: &mut Queues) {}

    /// The driver has reset the device, or has started it after a reset. [`Queues::setup`] is what is
    /// negotiated now. If the driver starts the device before the thread has handled the reset, only the
    /// start is reported.
    fn on_restart(&mut self, _queues: &Queues) {}
}
