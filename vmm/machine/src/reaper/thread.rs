//! The reaper's thread.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use super::pace::Pace;

type Task = Box<dyn FnOnce(&Pace) + Send>;

/// What the reaper's thread is to do.
enum Command {
    /// Drop the value, which takes system calls but little time.
    Discard(Box<dyn Send>),
    /// Run the task on a thread with this name.
    TakeApart(String, Task),
    /// End.
    End,
}

/// Sends work to a [`ReaperThread`]. Without one (the default), values and tasks are dropped on the calling
/// thread.
#[derive(Clone, Debug, Default)]
pub struct Reaper(Option<Connected>);

#[derive(Clone, Debug)]
struct Connected {
    commands: Sender<Command>,
}

impl Reaper {
    /// Drops `value`, without waiting until that is done.
    pub fn discard(&self, value: Box<dyn Send>) {
        self.send(Command::Discard(value));
    }

    /// Runs `task` on a thread of its own. After the end of the reaper's thread the task is dropped instead,
    /// together with what it owns.
    pub fn take_apart(&self, guest: &str, task: impl FnOnce(&Pace) + Send + 'static) {
        let name = format!("end:{guest}").chars().take(15).collect();
        self.send(Command::TakeApart(name, Box::new(task)));
    }

    fn send(&self, command: Command) {
        if let Some(connected) = &self.0 {
            // After the thread's end the command comes back, and is dropped here.
            let _ = connected.commands.send(command);
        }
    }
}

/// The reaper's thread. Dropping this value waits until all work is done.
#[derive(Debug)]
pub struct ReaperThread {
    commands: Sender<Command>,
    pace: Arc<Pace>,
    thread: Option<JoinHandle<()>>,
}

impl ReaperThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the host refuses a thread.
    pub fn spawn() -> io::Result<Self> {
        let (commands, received) = channel();
        let pace = Arc::new(Pace::default());
        let thread = thread::Builder::new().name("reaper".to_owned()).spawn({
            let pace = Arc::clone(&pace);
            move || serve(&received, &pace)
        })?;
        Ok(Self {
            commands,
            pace,
            thread: Some(thread),
        })
    }

    /// A value that sends work to the thread.
    #[must_use]
    pub fn reaper(&self) -> Reaper {
        Reaper(Some(Connected {
            commands: self.commands.clone(),
        }))
    }
}

impl Drop for ReaperThread {
    fn drop(&mut self) {
        self.pace.hurry();
        let _ = self.commands.send(Command::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(received: &Receiver<Command>, pace: &Arc<Pace>) {
    let mut tasks: Vec<JoinHandle<()>> = Vec::new();
    let mut execute = |command| match command {
        Command::Discard(value) => drop(value),
        Command::TakeApart(name, task) => {
            tasks.retain(|task| !task.is_finished());
            let pace = Arc::clone(pace);
            // If the host refuses a thread, the task is dropped here.
            tasks.extend(thread::Builder::new().name(name).spawn(move || task(&pace)));
        }
        Command::End => {}
    };
    while let Ok(command) = received.recv() {
        if matches!(command, Command::End) {
            break;
        }
        execute(command);
    }
    // Values that were discarded last may have sent more work.
    received.try_iter().for_each(&mut execute);
    for task in tasks {
        // A panic of the thread is on standard error already.
        let _ = task.join();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_guest_that_hangs_at_its_end_delays_no_other() {
        let thread = ReaperThread::spawn().expect("a thread");
        let reaper = thread.reaper();
        let (go_on, hangs) = sync_channel::<()>(0);
        let (report, reports) = sync_channel(2);
        let first = report.clone();
        reaper.take_apart("hung", move |_| {
            let _ = hangs.recv();
            let _ = first.send("hung");
        });
        reaper.take_apart("other", move |_| report.send("other").expect("room"));
        assert_eq!(reports.recv_timeout(Duration::from_secs(60)), Ok("other"));
        go_on.send(()).expect("it waits");
        drop(thread);
        assert_eq!(reports.recv(), Ok("hung"));
    }

    /// Sends more work when it is dropped, as the last vCPU of a guest does.
    struct Last(Reaper, std::sync::mpsc::SyncSender<()>);

    impl Drop for Last {
        fn drop(&mut self) {
            let report = self.1.clone();
            self.0
                .take_apart("guest", move |_| report.send(()).expect("room"));
        }
    }

    #[test]
    fn the_end_of_the_reaper_waits_for_all_its_work() {
        for _ in 0..100 {
            let thread = ReaperThread::spawn().expect("a thread");
            let (report, reports) = sync_channel(1);
            let last = Last(thread.reaper(), report);
            thread.reaper().discard(Box::new(last));
            drop(thread);
            assert_eq!(reports.try_recv(), Ok(()));
        }
    }

    #[test]
    fn work_after_the_end_of_the_reaper_is_dropped_at_once() {
        let reaper = ReaperThread::spawn().expect("a thread").reaper();
        let owned = Arc::new(());
        let task = Arc::clone(&owned);
        reaper.take_apart("late", move |_| drop(task));
        reaper.discard(Box::new(Arc::clone(&owned)));
        Reaper::default().discard(Box::new(Arc::clone(&owned)));
        assert_eq!(Arc::strong_count(&owned), 1);
    }
}
