//! `baton run --trace FILE`: every decision of the policy, and every exit, as a trace that Perfetto
//! shows ([`perfetto`] has the format; <https://ui.perfetto.dev> opens it).
//!
//! | file | idea |
//! |---|---|
//! | `record.rs` | what is recorded, and the rings that carry it here |
//! | `picture.rs` | from records to slices, arrows and counters |
//! | `tracks.rs` | the lanes |
//! | `packets.rs` | names become numbers, packets become bytes |
//! | `perfetto.rs` | the messages of the format |
//! | `output.rs` | the file until the run is known to start |

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use baton_os::sys;
use rtrb::Consumer;
use thiserror::Error;
use vcpu_sched::Ns;

mod output;
mod packets;
pub mod perfetto;
mod picture;
pub mod record;
mod tracks;

pub use output::TraceFile;
pub use tracks::{Names, VcpuName};

use packets::Packets;
use picture::Picture;
use record::{Port, RING, Record};

/// How often the rings are emptied. Producers make no system call, so nobody wakes the writer.
const EVERY: Duration = Duration::from_millis(50);

/// A trace could not be written.
#[derive(Debug, Error)]
pub enum TraceError {
    /// No file, or no room in it.
    #[error("cannot write the trace to {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No thread.
    #[error("cannot start the thread that writes the trace: {0}")]
    Thread(io::Error),
    /// The thread failed.
    #[error("the thread that writes the trace has failed; the trace in {} is not whole", .0.display())]
    Failed(PathBuf),
    /// The writer did not keep up.
    #[error(
        "the trace in {} lacks {lost} records: the disk or the CPUs were too busy for its writer",
        path.display()
    )]
    Lost {
        /// The file.
        path: PathBuf,
        /// Records that were dropped.
        lost: u64,
    },
}

/// A trace that is being written.
#[derive(Debug)]
pub struct Tracing {
    path: PathBuf,
    lost: Arc<AtomicU64>,
    stop: Sender<()>,
    writer: JoinHandle<io::Result<()>>,
}

/// The recording ends of a trace.
#[derive(Debug)]
pub struct Ports {
    /// For the policy, under the pool's lock.
    pub policy: Port,
    /// For each executor.
    pub executors: Vec<Port>,
}

/// A trace whose ports may record, and whose file has not been changed yet.
#[derive(Debug)]
pub struct Prepared {
    file: TraceFile,
    names: Names,
    lost: Arc<AtomicU64>,
    rings: Vec<Consumer<Record>>,
    /// The same moment on both clocks, before the first record, ns.
    now: Ns,
    boottime: Ns,
}

impl Prepared {
    /// Prepares a trace of `names` in `file`.
    pub fn new(file: TraceFile, names: &Names) -> (Self, Ports) {
        let (boottime, now) = (sys::boottime_ns(), sys::monotonic_ns());
        let lost = Arc::new(AtomicU64::new(0));
        let (policy, first) = Port::new(RING, &lost);
        let (executors, mut rings): (Vec<_>, Vec<_>) = names
            .host_cpus
            .iter()
            .map(|_| Port::new(RING, &lost))
            .unzip();
        rings.insert(0, first);
        let prepared = Self {
            file,
            names: names.clone(),
            lost,
            rings,
            now,
            boottime,
        };
        (prepared, Ports { policy, executors })
    }

    /// The run starts: empties the file and starts the writer.
    pub fn begin(self) -> Result<Tracing, TraceError> {
        let Self {
            mut file,
            names,
            lost,
            mut rings,
            now,
            boottime,
        } = self;
        let path = file.path().to_owned();
        let fail = |source| TraceError::File {
            path: path.clone(),
            source,
        };
        let file = file.begin().map_err(fail)?;
        let file = file.ok_or_else(|| fail(io::ErrorKind::NotFound.into()))?;
        let file = BufWriter::with_capacity(1 << 18, file);
        let mut picture = Picture::new(Packets::new(file, now, boottime), &names, now);
        let (stop, stopped) = mpsc::channel();
        let total = Arc::clone(&lost);
        let writer = thread::Builder::new().name("trace".into()).spawn(move || {
            loop {
                // The last round begins after the last record.
                let last = stopped.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout);
                for ring in &mut rings {
                    drain(ring, &mut picture);
                }
                if last {
                    return picture.finish(total.load(Ordering::Relaxed)).1;
                }
            }
        });
        let writer = writer.map_err(TraceError::Thread)?;
        Ok(Tracing {
            path,
            lost,
            stop,
            writer,
        })
    }
}

impl Tracing {
    /// Writes what is still in the rings, and ends the trace. Nobody may record any more.
    pub fn finish(self) -> Result<(), TraceError> {
        let Self {
            path,
            lost,
            stop,
            writer,
        } = self;
        drop(stop);
        match (writer.join(), lost.load(Ordering::Relaxed)) {
            (Err(_), _) => Err(TraceError::Failed(path)),
            (Ok(Err(source)), _) => Err(TraceError::File { path, source }),
            (Ok(Ok(())), 0) => Ok(()),
            (Ok(Ok(())), lost) => Err(TraceError::Lost { path, lost }),
        }
    }
}

/// Draws what is in the ring now; what comes meanwhile waits for the next round.
fn drain<W: Write>(ring: &mut Consumer<Record>, picture: &mut Picture<W>) {
    for _ in 0..ring.slots() {
        match ring.pop() {
            Ok(record) => picture.hear(record),
            Err(_) => return,
        }
    }
}
