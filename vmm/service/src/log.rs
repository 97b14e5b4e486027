//! The log of a pool, on standard error: for journald where that reads it, with times elsewhere.

use std::fmt;
use std::io::IsTerminal;

use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Lines that wait for the reader of standard error. Further lines are dropped.
const MAX_WAITING: usize = 4096;

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object in each line.
    Json,
}

/// Writes what the log still has when it is dropped.
#[derive(Debug)]
pub struct Log(#[allow(dead_code)] WorkerGuard);

/// Begins the log, with events of `level` and above.
#[must_use]
pub fn begin(level: Level, format: LogFormat) -> Log {
    // No thread of the pool waits for the reader of standard error.
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(MAX_WAITING)
        .thread_name("log")
        .finish(std::io::stderr());
    // Another log may have begun in a test.
    let _ = tracing::subscriber::set_global_default(subscriber(level, format, writer));
    Log(guard)
}

fn subscriber(
    level: Level,
    format: LogFormat,
    writer: NonBlocking,
) -> Box<dyn Subscriber + Send + Sync> {
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(writer);
    let for_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    match format {
        LogFormat::Json => Box::new(builder.json().flatten_event(true).finish()),
        LogFormat::Text if for_journal => {
            Box::new(builder.event_format(Journal::default()).finish())
        }
        LogFormat::Text => Box::new(builder.with_target(false).finish()),
    }
}

/// Lines for journald, which has times of its own and reads the level from the start of a line (sd-daemon(3)).
#[derive(Debug)]
struct Journal(Format<Full, ()>);

impl Default for Journal {
    fn default() -> Self {
        let lines = tracing_subscriber::fmt::format().without_time();
        Self(lines.with_target(false).with_level(false).with_ansi(false))
    }
}

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// The level as syslog numbers it.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}
