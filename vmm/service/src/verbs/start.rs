//! Starting the process of a guest, which goes on when this one ends.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use baton_config::{ConfigError, file};
use thiserror::Error;

use super::guest_log;
use super::pauses::Pauses;
use crate::client::{Client, ClientError};

/// How long a guest may take until it is in the list.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes at the end of the log that are shown of a guest that did not start.
const TAIL: u64 = 2048;

/// A guest could not be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// The file makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file has several guests.
    #[error("{} has {count} guests, and a process has one; give each a file of its own", path.display())]
    Several {
        /// The file.
        path: PathBuf,
        /// How many it has.
        count: usize,
    },
    /// A request failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A guest of this name is there.
    #[error("the pool has a guest {0} already; give another name")]
    There(String),
    /// The process could not be started.
    #[error("cannot start the process of guest {name}: {source}")]
    Host {
        /// The guest.
        name: String,
        /// The host's reason.
        source: io::Error,
    },
    /// The process has ended.
    #[error("guest {name} has not started ({status}); its log {} ends with: {tail}", log.display())]
    Ended {
        /// The guest.
        name: String,
        /// How its process ended.
        status: String,
        /// Its log.
        log: PathBuf,
        /// The end of the log, as one line.
        tail: String,
    },
    /// The guest does not join.
    #[error("guest {name} has not joined in {}s; see its log {}", PATIENCE.as_secs(), log.display())]
    Late {
        /// The guest.
        name: String,
        /// Its log.
        log: PathBuf,
    },
}

/// Starts the guest of the file `path` as a process of its own, with these `flags` of `baton vm`, and waits until it has
/// joined the pool of `client`. Returns its name and its log.
///
/// # Errors
/// If it does not start; then its process has ended.
pub fn start(
    client: &Client,
    path: &Path,
    flags: &[String],
) -> Result<(String, PathBuf), StartError> {
    let config = file::read(path)?;
    let name = match &config.guests[..] {
        [only] => only.name.clone(),
        several => {
            return Err(StartError::Several {
                path: path.to_owned(),
                count: several.len(),
            });
        }
    };
    match client.guest(&name) {
        Err(error) if error.is_missing() => {}
        Err(error) => return Err(error.into()),
        Ok(_) => return Err(StartError::There(name)),
    }
    let host = |source| StartError::Host {
        name: name.clone(),
        source,
    };
    let (log, path_of_log) = guest_log::create(&name).map_err(host)?;
    let child = spawn(client.directory(), path, flags, log).map_err(host)?;
    wait(client, &name, child, &path_of_log)?;
    Ok((name, path_of_log))
}

/// The process, in a session of its own.
fn spawn(pool: &Path, file: &Path, flags: &[String], log: File) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("vm")
        .arg("--pool")
        .arg(pool)
        .arg(file)
        .args(flags);
    command.stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log);
    let own_session = || {
        rustix::process::setsid()?;
        Ok(())
    };
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(own_session) };
    command.spawn()
}

fn wait(client: &Client, name: &str, mut child: Child, log: &Path) -> Result<(), StartError> {
    let until = Instant::now() + PATIENCE;
    let mut pauses = Pauses::default();
    loop {
        match client.guest(name) {
            Ok(_) => return Ok(()),
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error.into()),
        }
        if let Ok(Some(status)) = child.try_wait() {
            // One that has ended well within a moment has done its work.
            return match status.success() {
                true => Ok(()),
                false => Err(StartError::Ended {
                    name: name.to_owned(),
                    status: status.to_string(),
                    log: log.to_owned(),
                    tail: tail(log),
                }),
            };
        }
        if Instant::now() >= until {
            // It would join later, unnoticed.
            let _ = child.kill();
            let _ = child.wait();
            return Err(StartError::Late {
                name: name.to_owned(),
                log: log.to_owned(),
            });
        }
        thread::sleep(pauses.next());
    }
}

/// The end of the log as one line.
fn tail(log: &Path) -> String {
    let read = || {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes).trim().replace('\n', "; ");
        // What a guest prints must not control the terminal.
        io::Result::Ok(text.chars().filter(|c| !c.is_control()).collect())
    };
    read().unwrap_or_default()
}
