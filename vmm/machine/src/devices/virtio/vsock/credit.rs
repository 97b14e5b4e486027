//! Credit: how many bytes each side of a connection may still send.
//!
//! Each side reports in every packet the size of its buffer (`buf_alloc`) and how many bytes have left that
//! buffer (`fwd_cnt`). The other side sends no more than fits. All counters wrap.
//!
//! Source: VIRTIO 1.2, 5.10.6.3.

/// Size of the host's buffer for the guest's bytes, per connection.
pub(super) const BUFFER: u32 = 64 << 10;

/// The credit that the host gives to the guest.
#[derive(Debug, Default)]
pub(super) struct ReceiveCredit {
    /// Bytes that the guest has sent.
    received: u32,
    /// The count of bytes that have left the buffer, as reported to the guest last.
    reported: u32,
    /// The guest has requested a report.
    requested: bool,
}

impl ReceiveCredit {
    /// The guest has sent so many bytes.
    pub(super) fn receive(&mut self, bytes: u32) {
        self.received = self.received.wrapping_add(bytes);
    }

    /// The guest requests a report.
    pub(super) fn request(&mut self) {
        self.requested = true;
    }

    /// The count of bytes that have left the buffer, in which `buffered` bytes are.
    fn forwarded(&self, buffered: u32) -> u32 {
        self.received.wrapping_sub(buffered)
    }

    /// The count of bytes that have left the buffer, for a packet that reports it to the guest now.
    pub(super) fn report(&mut self, buffered: u32) -> u32 {
        self.reported = self.forwarded(buffered);
        self.requested = false;
        self.reported
    }

    /// Whether the guest needs a report: it has requested one, or it believes that less than half of the buffer
    /// is free and there is more.
    pub(super) fn is_report_due(&self, buffered: u32) -> bool {
        let believed = BUFFER.saturating_sub(self.received.wrapping_sub(self.reported));
        self.requested || believed < BUFFER / 2 && self.reported != self.forwarded(buffered)
    }
}

/// The credit that the guest gives to the host.
///
/// The guest chooses these numbers freely. They only limit what the guest is sent, one packet at a time, so no
/// value harms the host.
#[derive(Debug, Default)]
pub(super) struct SendCredit {
    /// Bytes that the guest has been sent.
    sent: u32,
    /// Size of the guest's buffer.
    buf_alloc: u32,
    /// Bytes that have left the guest's buffer.
    fwd_cnt: u32,
    /// The host has requested a report and has not received one that gives credit.
    requested: bool,
}

impl SendCredit {
    /// The credit at the start of a connection.
    pub(super) fn new(buf_alloc: u32, fwd_cnt: u32) -> Self {
        Self {
            buf_alloc,
            fwd_cnt,
            ..Self::default()
        }
    }

    /// The guest has reported its buffer.
    pub(super) fn update(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        self.buf_alloc = buf_alloc;
        self.fwd_cnt = fwd_cnt;
        if self.available() > 0 {
            self.requested = false;
        }
    }

    /// Bytes that the guest has room for.
    pub(super) fn available(&self) -> u32 {
        let in_transit = self.sent.wrapping_sub(self.fwd_cnt);
        self.buf_alloc.saturating_sub(in_transit)
    }

    /// The guest is sent so many bytes.
    pub(super) fn spend(&mut self, bytes: u32) {
        self.sent = self.sent.wrapping_add(bytes);
    }

    /// Whether the host must request a report before it can send anything.
    pub(super) fn is_request_due(&self) -> bool {
        self.available() == 0 && !self.requested
    }

    /// The host requests a report.
    pub(super) fn request(&mut self) {
        self.requested = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_due_on_request_or_when_the_guest_believes_that_half_of_the_buffer_is_used() {
        let mut credit = ReceiveCredit::default();
        credit.receive(BUFFER / 2);
        assert!(!credit.is_report_due(0));
        credit.receive(1);
        assert!(credit.is_report_due(0));
        assert!(!credit.is_report_due(BUFFER / 2 + 1), "nothing has left");
        assert_eq!(credit.report(1), BUFFER / 2);
        assert!(!credit.is_report_due(0));
        credit.request();
        assert!(credit.is_report_due(1));
        assert_eq!(credit.report(0), BUFFER / 2 + 1);
        assert!(!credit.is_report_due(0));
    }

    #[test]
    fn counters_that_wrap_change_no_credit() {
        let mut receive = ReceiveCredit::default();
        receive.receive(u32::MAX);
        receive.report(0);
        receive.receive(BUFFER / 2);
        assert!(!receive.is_report_due(0));
        receive.receive(1);
        assert!(receive.is_report_due(0));
        assert_eq!(receive.report(0), BUFFER / 2);
        let mut send = SendCredit::new(100, 0);
        send.spend(u32::MAX);
        send.update(100, u32::MAX);
        send.spend(60);
        assert_eq!(send.available(), 40);
    }

    #[test]
    fn the_guest_is_requested_once_to_report_credit_until_it_gives_some() {
        let mut credit = SendCredit::new(10, 0);
        assert!(!credit.is_request_due());
        credit.spend(10);
        assert!(credit.is_request_due());
        credit.request();
        credit.update(10, 0);
        assert!(!credit.is_request_due());
        credit.update(10, 4);
        assert_eq!(credit.available(), 4);
        credit.spend(4);
        assert!(credit.is_request_due());
    }
}
