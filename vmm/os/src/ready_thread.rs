//! Starting a thread and waiting until it has set itself up.

use std::io;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

use thiserror::Error;

/// A thread that does not run.
#[derive(Debug, Error)]
pub enum SpawnError {
    /// The thread could not be started.
    #[error("cannot start a thread: {0}")]
    Start(io::Error),
    /// The thread could not set itself up, and has ended.
    #[error("cannot set up a thread: {0}")]
    SetUp(io::Error),
}

impl From<SpawnError> for io::Error {
    fn from(error: SpawnError) -> Self {
        match error {
            SpawnError::Start(error) | SpawnError::SetUp(error) => error,
        }
    }
}

/// Starts a thread that calls `init` and then `run` with the state that `init` made there. Returns once
/// `init` has, with what it reported beside the state. The state need not be [`Send`]: it stays on its
/// thread.
///
/// # Errors
/// If the thread cannot be started, or `init` fails or panics. `run` is not called then.
pub fn spawn_ready<S, R, T>(
    builder: Builder,
    init: impl FnOnce() -> io::Result<(S, R)> + Send + 'static,
    run: impl FnOnce(S) -> T + Send + 'static,
) -> Result<(JoinHandle<T>, R), SpawnError>
where
    R: Send + 'static,
    T: Default + Send + 'static,
{
    let (ready, is_ready) = mpsc::sync_channel(1);
    let body = move || match init() {
        Ok((state, report)) => {
            // The creator waits for it.
            let _ = ready.send(Ok(report));
            drop(ready);
            run(state)
        }
        Err(error) => {
            let _ = ready.send(Err(error));
            // The creator does not get the handle from which this could be read.
            T::default()
        }
    };
    let thread = builder.spawn(body).map_err(SpawnError::Start)?;
    let panicked = || io::Error::other("the thread panicked");
    match is_ready.recv().unwrap_or_else(|_| Err(panicked())) {
        Ok(report) => Ok((thread, report)),
        Err(error) => Err(SpawnError::SetUp(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    fn named(name: &str) -> Builder {
        Builder::new().name(name.to_owned())
    }

    #[test]
    fn the_state_stays_on_the_thread_and_the_report_comes_back_before_it_runs() {
        let (go_on, waits) = mpsc::channel();
        let init = || Ok((Rc::new(5), "ready"));
        let run = move |state: Rc<i32>| *state + waits.recv().expect("a number");
        let (thread, report) = spawn_ready(named("adds"), init, run).expect("it is ready");
        assert_eq!(report, "ready");
        go_on.send(2).expect("it runs");
        assert_eq!(thread.join().expect("no panic"), 7);
    }

    #[test]
    fn a_thread_that_cannot_be_set_up_does_not_run() {
        let fails = || Err::<((), ()), _>(io::ErrorKind::Unsupported.into());
        let runs = |()| -> () { unreachable!("it is not set up") };
        let error = spawn_ready(named("fails"), fails, runs).expect_err("refused");
        assert!(matches!(&error, SpawnError::SetUp(e) if e.kind() == io::ErrorKind::Unsupported));
    }

    #[test]
    fn a_panic_in_the_set_up_is_an_error_of_the_creator() {
        let panics = || -> io::Result<((), ())> { panic!("for this test") };
        let error = spawn_ready(named("panics"), panics, |()| ()).expect_err("it panicked");
        assert!(matches!(error, SpawnError::SetUp(_)));
    }

    #[test]
    fn a_thread_that_the_host_refuses_is_another_error() {
        let huge = named("huge").stack_size(1 << 60);
        let error = spawn_ready(huge, || Ok(((), ())), |()| ()).expect_err("too large a stack");
        assert!(matches!(error, SpawnError::Start(_)));
    }
}
