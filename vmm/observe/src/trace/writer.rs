//! The thread that empties the rings into the file, from the start of the run to its end.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use baton_os::sys;
use rtrb::Consumer;
use vcpu_sched::Ns;

use super::error::TraceError;
use super::joined_names::JoinedNames;
use super::packets::Packets;
use super::picture::TracePicture;
use super::probes::{ExitProbe, PolicyProbe, TraceProbes};
use super::record::{RING_LENGTH, RingWriter, TraceRecord};
use super::trace_file::TraceFile;
use crate::names::Names;

/// How often the rings are emptied. Producers make no system call, so nothing wakes the writer.
const EVERY: Duration = Duration::from_millis(50);

/// How long the file may take no bytes at the end of the run. Its reader, if it is a pipe, may never read
/// again, and the summary must not wait for that.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes that are written to the file at once.
const BUFFER: usize = 1 << 18;

/// A trace whose probes may record, and whose file has not been changed yet.
#[derive(Debug)]
pub struct PreparedTrace {
    file: TraceFile,
    names: Names,
    joined: Arc<JoinedNames>,
    lost: Arc<AtomicU64>,
    rings: Vec<Consumer<TraceRecord>>,
    /// The same moment on both clocks, before the first record, ns.
    now: Ns,
    boottime: Ns,
}

impl PreparedTrace {
    /// Prepares a trace of `names` in `file`.
    pub fn new(file: TraceFile, names: &Names) -> (Self, TraceProbes) {
        let (boottime, now) = (sys::boottime_ns(), sys::monotonic_ns());
        let lost = Arc::new(AtomicU64::new(0));
        let (policy, ring) = RingWriter::new(RING_LENGTH, &lost);
        let mut rings = vec![ring];
        let mut executors = Vec::with_capacity(names.host_cpus.len());
        for _ in &names.host_cpus {
            let (executor, ring) = RingWriter::new(RING_LENGTH, &lost);
            executors.push(ExitProbe(executor));
            rings.push(ring);
        }
        let prepared = Self {
            file,
            names: names.clone(),
            joined: Arc::new(JoinedNames::after(names)),
            lost,
            rings,
            now,
            boottime,
        };
        let policy = PolicyProbe(policy);
        (prepared, TraceProbes { policy, executors })
    }

    /// Where the names of vCPUs are left that join from now on.
    #[must_use]
    pub fn joined_names(&self) -> Arc<JoinedNames> {
        Arc::clone(&self.joined)
    }

    /// Empties the file and starts the writer, because the run starts.
    ///
    /// # Errors
    /// [`TraceError::File`] or [`TraceError::Thread`] if the host refuses.
    pub fn begin(mut self) -> Result<Tracing, TraceError> {
        let path = self.file.path().to_owned();
        let fail = |source| TraceError::File {
            path: path.clone(),
            source,
        };
        let file = self.file.begin().map_err(fail)?;
        let file = file.ok_or_else(|| fail(io::ErrorKind::NotFound.into()))?;
        let written = Arc::new(AtomicU64::new(0));
        let file = Counted {
            file,
            written: Arc::clone(&written),
        };
        let out = BufWriter::with_capacity(BUFFER, file);
        let packets = Packets::new(out, self.now, self.boottime);
        let picture = TracePicture::new(packets, &self.names, self.joined, self.now);
        let (stop, stopped) = mpsc::channel();
        let (done, ended) = mpsc::channel();
        let (rings, lost) = (self.rings, Arc::clone(&self.lost));
        thread::Builder::new()
            .name("trace".into())
            .spawn(move || {
                let result = write_until(&stopped, rings, picture, &lost);
                // Where the run has ended without waiting, the result is of no use.
                let _ = done.send(result);
            })
            .map_err(TraceError::Thread)?;
        Ok(Tracing {
            path,
            lost: self.lost,
            written,
            stop,
            ended,
        })
    }
}

/// Draws the records of `rings` until `stopped` is disconnected, and ends the trace.
fn write_until<W: Write>(
    stopped: &Receiver<()>,
    mut rings: Vec<Consumer<TraceRecord>>,
    mut picture: TracePicture<W>,
    lost: &AtomicU64,
) -> io::Result<()> {
    loop {
        // The last round begins after the last record.
        let last = stopped.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout);
        for ring in &mut rings {
            drain(ring, &mut picture);
        }
        if last {
            return picture.finish(lost.load(Ordering::Relaxed)).1;
        }
    }
}

/// Draws what is in the ring now. What is recorded meanwhile waits for the next round.
fn drain<W: Write>(ring: &mut Consumer<TraceRecord>, picture: &mut TracePicture<W>) {
    for _ in 0..ring.slots() {
        match ring.pop() {
            Ok(record) => picture.draw(record),
            Err(_) => return,
        }
    }
}

/// A trace that is being written.
#[derive(Debug)]
pub struct Tracing {
    path: PathBuf,
    lost: Arc<AtomicU64>,
    /// Bytes written to the file.
    written: Arc<AtomicU64>,
    /// Dropped to stop the writer.
    stop: Sender<()>,
    /// Gets the writer's result at its end.
    ended: Receiver<io::Result<()>>,
}

impl Tracing {
    /// Writes what is still in the rings, and ends the trace. Nothing may be recorded any more. A writer that
    /// makes no progress for some seconds is left behind.
    ///
    /// # Errors
    /// If the trace is not whole.
    pub fn finish(self) -> Result<(), TraceError> {
        self.finish_within(PATIENCE)
    }

    /// The same, where the writer may go without progress for `patience`.
    fn finish_within(self, patience: Duration) -> Result<(), TraceError> {
        let path = self.path;
        drop(self.stop);
        let mut before = self.written.load(Ordering::Relaxed);
        let result = loop {
            match self.ended.recv_timeout(patience) {
                Ok(result) => break result,
                Err(RecvTimeoutError::Disconnected) => return Err(TraceError::Failed(path)),
                Err(RecvTimeoutError::Timeout) => {
                    let now = self.written.load(Ordering::Relaxed);
                    if std::mem::replace(&mut before, now) == now {
                        return Err(TraceError::Stuck { path, patience });
                    }
                }
            }
        };
        match (result, self.lost.load(Ordering::Relaxed)) {
            (Err(source), _) => Err(TraceError::File { path, source }),
            (Ok(()), 0) => Ok(()),
            (Ok(()), lost) => Err(TraceError::Lost { path, lost }),
        }
    }
}

/// A file that counts the bytes that it has taken.
#[derive(Debug)]
struct Counted {
    file: File,
    written: Arc<AtomicU64>,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.written.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::OpenOptionsExt;

    use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
    use vcpu_sched::VcpuId;

    use super::*;

    #[test]
    fn a_trace_into_a_pipe_that_is_not_read_ends_and_reports_that_it_is_not_whole() {
        let path = std::env::temp_dir().join(format!("baton-stuck-{}", std::process::id()));
        mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).expect("a pipe");
        // It keeps the pipe open, and never reads.
        let reader = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits() as i32)
            .open(&path)
            .expect("a reader");
        let file = TraceFile::open(&path).expect("a trace");
        let (prepared, mut probes) = PreparedTrace::new(file, &Names::default());
        // More than fits into the buffer and the pipe.
        for at in 0..30_000 {
            probes.policy.event(at, vcpu_sched::Event::Miss(VcpuId(0)));
        }
        let tracing = prepared.begin().expect("begins");
        let error = tracing
            .finish_within(Duration::from_millis(50))
            .expect_err("stuck");
        assert!(matches!(error, TraceError::Stuck { .. }), "{error}");
        drop(reader);
        fs::remove_file(path).expect("removed");
    }
}
