//! Takes ended guests apart, so that neither executors nor other guests wait for it.
//!
//! A device's thread may hang in a disk's system call, KVM waits for grace periods when it destroys a
//! virtual machine, and gigabytes take a while to go back to the host. So each guest is taken apart by a
//! thread of its own, which the reaper's thread starts when the last vCPU is gone.
//!
//! The threads run beside guests that go on, and nobody is left to pay for them. So they rest
//! ([`Pace`]), until the run ends and nobody runs beside them.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use baton_os::sys;

/// One part in so many of a host CPU goes into giving a guest's memory back, at most.
const PARTS: u64 = 100;
/// CPU time between two rests, ns. A rest within a piece of work is not possible, and much shorter ones
/// would cost more than the work.
const STRETCH_NS: u64 = 100_000;

type Task = Box<dyn FnOnce(&Pace) + Send>;

/// What the reaper's thread is asked for.
enum Order {
    /// To drop this, which takes system calls but not long.
    Discard(Box<dyn Send>),
    /// To do this on a thread with this name.
    TakeApart(String, Task),
    /// To end.
    End,
}

/// The way to a [`ReaperThread`]. Without one (the default) everything is done on the thread that asks.
#[derive(Clone, Debug, Default)]
pub struct Reaper(Option<Connected>);

#[derive(Clone, Debug)]
struct Connected {
    orders: Sender<Order>,
}

impl Reaper {
    /// Drops `value`, and does not wait until that is done.
    pub fn discard(&self, value: Box<dyn Send>) {
        self.order(Order::Discard(value));
    }

    /// Does `task` on a thread of its own. A task that finds no thread any more is dropped, so what it
    /// owns must take care of itself then.
    pub fn take_apart(&self, guest: &str, task: impl FnOnce(&Pace) + Send + 'static) {
        let name = format!("end:{guest}").chars().take(15).collect();
        self.order(Order::TakeApart(name, Box::new(task)));
    }

    fn order(&self, order: Order) {
        if let Some(connected) = &self.0 {
            // After the thread's end the order comes back, and is dropped here.
            let _ = connected.orders.send(order);
        }
    }
}

/// The reaper's thread, which ends with all that it has been asked for when this is dropped.
#[derive(Debug)]
pub struct ReaperThread {
    orders: Sender<Order>,
    pace: Arc<Pace>,
    thread: Option<JoinHandle<()>>,
}

impl ReaperThread {
    /// Starts it.
    ///
    /// # Errors
    /// If the host gives no thread.
    pub fn spawn() -> io::Result<Self> {
        let (orders, asked) = channel();
        let pace = Arc::new(Pace::default());
        let thread = thread::Builder::new().name("reaper".to_owned()).spawn({
            let pace = Arc::clone(&pace);
            move || serve(&asked, &pace)
        })?;
        Ok(Self {
            orders,
            pace,
            thread: Some(thread),
        })
    }

    /// The way to it.
    #[must_use]
    pub fn reaper(&self) -> Reaper {
        Reaper(Some(Connected {
            orders: self.orders.clone(),
        }))
    }
}

impl Drop for ReaperThread {
    fn drop(&mut self) {
        self.pace.hurry();
        let _ = self.orders.send(Order::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(asked: &Receiver<Order>, pace: &Arc<Pace>) {
    let mut tasks: Vec<JoinHandle<()>> = Vec::new();
    let mut obey = |order| match order {
        Order::Discard(value) => drop(value),
        Order::TakeApart(name, task) => {
            tasks.retain(|task| !task.is_finished());
            let pace = Arc::clone(pace);
            // Without a thread it is dropped here, as `Reaper::take_apart` says.
            tasks.extend(thread::Builder::new().name(name).spawn(move || task(&pace)));
        }
        Order::End => {}
    };
    while let Ok(order) = asked.recv() {
        if matches!(order, Order::End) {
            break;
        }
        obey(order);
    }
    // What was discarded last may have asked for more.
    asked.try_iter().for_each(&mut obey);
    for task in tasks {
        // One that panicked has said so on standard error.
        let _ = task.join();
    }
}

/// How fast guests are taken apart.
#[derive(Debug, Default)]
pub struct Pace {
    hurried: Mutex<bool>,
    changed: Condvar,
}

impl Pace {
    /// Begins work of the calling thread that rests.
    pub fn begin(&self) -> Paced<'_> {
        Paced {
            pace: self,
            rested_at: sys::thread_cpu_ns(),
        }
    }

    /// Nobody rests from now on.
    fn hurry(&self) {
        *self.hurried.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn wait(&self, time: Duration) {
        let hurried = self.hurried.lock().unwrap_or_else(PoisonError::into_inner);
        drop(
            self.changed
                .wait_timeout_while(hurried, time, |hurried| !*hurried)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}

/// Work that rests.
#[derive(Debug)]
pub struct Paced<'a> {
    pace: &'a Pace,
    /// CPU time of the thread at its last rest, ns.
    rested_at: u64,
}

impl Paced<'_> {
    /// Between two pieces of work: rests if it is time.
    pub fn rest_if_due(&mut self) {
        let spent = sys::thread_cpu_ns().saturating_sub(self.rested_at);
        if let Some(rest) = rest_after(spent) {
            self.pace.wait(rest);
            self.rested_at = sys::thread_cpu_ns();
        }
    }
}

/// How long to rest after `spent` ns of CPU time since the last rest; `None`: not yet.
fn rest_after(spent: u64) -> Option<Duration> {
    (spent >= STRETCH_NS).then(|| Duration::from_nanos(spent.saturating_mul(PARTS - 1)))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn a_guest_that_hangs_at_its_end_keeps_no_other_from_going() {
        let thread = ReaperThread::spawn().expect("a thread");
        let reaper = thread.reaper();
        let (go_on, hangs) = sync_channel::<()>(0);
        let (tell, told) = sync_channel(2);
        let telling = tell.clone();
        reaper.take_apart("hung", move |_| {
            let _ = hangs.recv();
            let _ = telling.send("hung");
        });
        reaper.take_apart("other", move |_| tell.send("other").expect("room"));
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok("other"));
        go_on.send(()).expect("it waits");
        drop(thread);
        assert_eq!(told.recv(), Ok("hung"));
    }

    /// Asks for more when it is dropped, as the last vCPU of a guest does.
    struct Last(Reaper, std::sync::mpsc::SyncSender<()>);

    impl Drop for Last {
        fn drop(&mut self) {
            let tell = self.1.clone();
            self.0
                .take_apart("guest", move |_| tell.send(()).expect("room"));
        }
    }

    #[test]
    fn the_end_of_the_reaper_waits_for_all_that_it_was_asked_for() {
        for _ in 0..100 {
            let thread = ReaperThread::spawn().expect("a thread");
            let (tell, told) = sync_channel(1);
            let last = Last(thread.reaper(), tell);
            thread.reaper().discard(Box::new(last));
            drop(thread);
            assert_eq!(told.try_recv(), Ok(()));
        }
    }

    #[test]
    fn what_comes_after_the_end_of_the_reaper_is_dropped_at_once() {
        let reaper = ReaperThread::spawn().expect("a thread").reaper();
        let owned = Arc::new(());
        let task = Arc::clone(&owned);
        reaper.take_apart("late", move |_| drop(task));
        reaper.discard(Box::new(Arc::clone(&owned)));
        Reaper::default().discard(Box::new(Arc::clone(&owned)));
        assert_eq!(Arc::strong_count(&owned), 1);
    }

    #[test]
    fn giving_memory_back_uses_a_hundredth_of_a_host_cpu() {
        assert_eq!(rest_after(STRETCH_NS - 1), None);
        assert_eq!(rest_after(1_000_000), Some(Duration::from_millis(99)));
    }

    #[test]
    fn at_the_end_of_the_run_nobody_rests() {
        let pace = Pace::default();
        pace.hurry();
        // Would be over in some 292 years.
        pace.wait(Duration::from_nanos(u64::MAX / 2));
    }
}
