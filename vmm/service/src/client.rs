//! A client of the API.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use baton_api::{ApiError, Event, Guest, GuestChange, GuestList, PoolCpuChange, PoolStatus};
use baton_os::directory::Directory;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::places::{self, API_SOCKET, PlaceError};

/// Longest time to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(70);

/// A request to a pool has failed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// There is no pool.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The pool refused.
    #[error("{}{}", .error.error, would_fit_text(.error))]
    Refused {
        /// The status.
        status: StatusCode,
        /// The pool's sentence.
        error: ApiError,
    },
    /// The connection failed.
    #[error("the pool in {} does not answer: {source}", directory.display())]
    Host {
        /// The directory of the pool.
        directory: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

fn would_fit_text(error: &ApiError) -> String {
    match &error.would_fit {
        // Most sentences have it already.
        Some(fits) if !error.error.contains(fits.as_str()) => format!("; what would fit: {fits}"),
        _ => String::new(),
    }
}

impl ClientError {
    /// Whether there is no such guest.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::NOT_FOUND)
    }
}

/// A client of one pool.
#[derive(Debug)]
pub struct Client {
    directory: PathBuf,
    runtime: Runtime,
}

impl Client {
    /// A client of the pool in the directory `named`, or of the one that is found.
    ///
    /// # Errors
    /// If none runs there.
    pub fn new(named: Option<&Path>) -> Result<Self, ClientError> {
        let directory = places::find(named)?;
        let runtime = Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => Ok(Self { directory, runtime }),
            Err(source) => Err(ClientError::Host { directory, source }),
        }
    }

    /// The directory of the pool.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The pool.
    ///
    /// # Errors
    /// If the pool refuses or does not answer; so have all of these.
    pub fn pool(&self) -> Result<PoolStatus, ClientError> {
        self.read(Method::GET, "/v1/pool", Bytes::new())
    }

    /// Has the pool get (`add`) or give up (`remove`) the host CPUs of the list `host_cpus`.
    ///
    /// # Errors
    /// As [`Self::pool`].
    pub fn change_cpus(&self, change: &str, host_cpus: &str) -> Result<PoolStatus, ClientError> {
        let host_cpus = host_cpus.to_owned();
        let path = format!("/v1/pool/cpus/{change}");
        self.read(Method::POST, &path, json(&PoolCpuChange { host_cpus }))
    }

    /// All guests.
    ///
    /// # Errors
    /// As [`Self::pool`].
    pub fn guests(&self) -> Result<GuestList, ClientError> {
        self.read(Method::GET, "/v1/guests", Bytes::new())
    }

    /// The guest `name`.
    ///
    /// # Errors
    /// As [`Self::pool`].
    pub fn guest(&self, name: &str) -> Result<Guest, ClientError> {
        self.read(Method::GET, &guest_path(name), Bytes::new())
    }

    /// Changes the guest `name`.
    ///
    /// # Errors
    /// As [`Self::pool`].
    pub fn change(&self, name: &str, change: &GuestChange) -> Result<Guest, ClientError> {
        self.read(Method::PATCH, &guest_path(name), json(change))
    }

    /// Posts `order`, such as `pause`, to the guest `name`.
    ///
    /// # Errors
    /// As [`Self::pool`].
    pub fn order(&self, name: &str, order: &str) -> Result<(), ClientError> {
        let path = format!("{}/{order}", guest_path(name));
        self.request(Method::POST, &path, Bytes::new()).map(drop)
    }

    /// Kills the process of the guest `name`.
    ///
    /// # Errors
    /// As [`Self::pool`].
    pub fn kill(&self, name: &str) -> Result<(), ClientError> {
        self.request(Method::DELETE, &guest_path(name), Bytes::new())
            .map(drop)
    }

    /// Calls `each` with each event and the line that has it, until `each` returns false or the pool ends.
    ///
    /// # Errors
    /// As [`Self::pool`].
    pub fn follow(&self, mut each: impl FnMut(&Event, &str) -> bool) -> Result<(), ClientError> {
        let follow = async {
            let response = self.send(Method::GET, "/v1/events", Bytes::new()).await?;
            if response.status() != StatusCode::OK {
                return Err(Failed::Refused(refusal(response).await?));
            }
            let mut body = response.into_body();
            let mut rest = Vec::new();
            while let Some(frame) = body.frame().await {
                rest.extend_from_slice(
                    &frame
                        .map_err(io::Error::other)?
                        .into_data()
                        .unwrap_or_default(),
                );
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    let event = serde_json::from_slice(&line).map_err(io::Error::other)?;
                    if !each(&event, String::from_utf8_lossy(&line).trim_end()) {
                        return Ok(());
                    }
                }
            }
            Ok(())
        };
        self.runtime
            .block_on(follow)
            .map_err(|failed| self.error(failed))
    }

    fn read<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let body = self.request(method, path, body)?;
        let read = serde_json::from_slice(&body);
        read.map_err(|error| self.error(Failed::Host(io::Error::other(error))))
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let request = async {
            let response = self.send(method, path, body).await?;
            if !response.status().is_success() {
                return Err(Failed::Refused(refusal(response).await?));
            }
            Ok(whole(response).await?)
        };
        let in_time = async {
            let late = |_| Failed::Host(io::ErrorKind::TimedOut.into());
            timeout(PATIENCE, request).await.map_err(late)?
        };
        self.runtime
            .block_on(in_time)
            .map_err(|failed| self.error(failed))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> io::Result<Response<Incoming>> {
        let directory = Directory::open_no_link(&self.directory)?;
        let stream = directory.connect(API_SOCKET.as_ref())?;
        stream.set_nonblocking(true)?;
        let stream = TokioIo::new(UnixStream::from_std(stream)?);
        let (mut sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
        // What it reports is reported by the request, too.
        tokio::spawn(async move { drop(connection.await) });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "baton")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(io::Error::other)?;
        sender.send_request(request).await.map_err(io::Error::other)
    }

    fn error(&self, failed: Failed) -> ClientError {
        match failed {
            Failed::Refused((status, error)) => ClientError::Refused { status, error },
            Failed::Host(source) => ClientError::Host {
                directory: self.directory.clone(),
                source,
            },
        }
    }
}

enum Failed {
    Refused((StatusCode, ApiError)),
    Host(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Host(error)
    }
}

async fn whole(response: Response<Incoming>) -> io::Result<Bytes> {
    let body = response.into_body().collect().await;
    Ok(body.map_err(io::Error::other)?.to_bytes())
}

async fn refusal(response: Response<Incoming>) -> io::Result<(StatusCode, ApiError)> {
    let status = response.status();
    let body = whole(response).await?;
    let error = serde_json::from_slice(&body).unwrap_or_else(|_| ApiError {
        error: format!("the pool answers with {status}"),
        would_fit: None,
    });
    Ok((status, error))
}

fn json(value: &impl Serialize) -> Bytes {
    // Plain data always has a JSON form.
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// The path of the guest `name`, in which each byte that has a meaning in paths is escaped (RFC 3986, 2.1).
fn guest_path(name: &str) -> String {
    let mut path = "/v1/guests/".to_owned();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => path.push(byte.into()),
            b'.' if name != "." && name != ".." => path.push('.'),
            byte => path += &format!("%{byte:02X}"),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_guest_cannot_be_another_path() {
        assert_eq!(guest_path("db-1.x"), "/v1/guests/db-1.x");
        assert_eq!(guest_path("a/../b c"), "/v1/guests/a%2F..%2Fb%20c");
        assert_eq!(guest_path(".."), "/v1/guests/%2E%2E");
    }
}
