//! Answers, and work that may wait, which is done on other threads than the server's own.

use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::limits::{LONGEST_WORK, PATIENCE};
use super::work_places::WorkPlaces;
use crate::failure::{Failure, FailureKind};
use crate::service::Service;

/// What all requests share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) service: Arc<Service>,
    work: WorkPlaces,
}

impl Shared {
    pub(super) fn new(service: Arc<Service>) -> Self {
        Self {
            service,
            work: WorkPlaces::default(),
        }
    }

    /// Does `work` of user `uid`, which may wait for executors.
    ///
    /// # Errors
    /// Those of `work`, or if it takes too long. Then it still takes place when it can.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        uid: u32,
        work: impl FnOnce(&Service) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let busy = |what: &str| Failure::new(FailureKind::Busy, what);
        let Ok(place) = timeout(PATIENCE, self.work.take(uid)).await else {
            return Err(busy("the pool has too many requests to answer; try again"));
        };
        let service = Arc::clone(&self.service);
        let done = spawn_blocking(move || {
            let _until_done = place;
            work(&service)
        });
        match timeout(LONGEST_WORK, done).await {
            Ok(Ok(result)) => result,
            // A panic has been reported on standard error.
            Ok(Err(_)) => Err(busy("the pool has failed to answer; see its log")),
            Err(_) => Err(busy("the pool takes too long to answer; see its log")),
        }
    }
}

impl FailureKind {
    fn status(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::Missing => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Senseless => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.kind.status(), Json(self.error)).into_response()
    }
}
