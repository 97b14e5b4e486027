//! Which request does what.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use baton_api::{
    ApiError, Event, EventKind, Guest, GuestChange, GuestList, PoolCpuChange, PoolStatus,
};
use baton_link::message::Order;
use baton_os::peer::Peer;
use futures_util::stream;
use serde::de::DeserializeOwned;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;
use utoipa::OpenApi;

use super::answers::Shared;
use super::limits::{MAX_BODY, PATIENCE};
use crate::failure::{Failure, FailureKind};
use crate::host_cpus::CpuChange;
use crate::service::Service;

/// Who has sent a request, and whether its answer may take as long as the client wants.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) peer: Arc<Peer>,
    pub(super) follows: Arc<AtomicBool>,
}

type Named = Result<Path<String>, PathRejection>;

/// All requests.
pub(super) fn routes(shared: Shared) -> Router {
    Router::new()
        .route("/v1/pool", get(get_pool))
        .route("/v1/pool/cpus/add", post(add_cpus))
        .route("/v1/pool/cpus/remove", post(remove_cpus))
        .route("/v1/guests", get(get_guests))
        .route(
            "/v1/guests/{name}",
            get(get_guest).patch(patch_guest).delete(delete_guest),
        )
        .route("/v1/guests/{name}/pause", post(pause))
        .route("/v1/guests/{name}/resume", post(resume))
        .route("/v1/guests/{name}/power-button", post(power_button))
        .route("/v1/guests/{name}/power-off", post(power_off))
        .route("/v1/guests/{name}/reset", post(reset))
        .route("/v1/events", get(get_events))
        .route("/v1/openapi.json", get(get_document))
        .route("/snapshot", get(get_snapshot))
        .route("/metrics", get(get_metrics))
        .fallback(async || {
            Failure::new(
                FailureKind::Missing,
                "there is nothing at this path; see /v1/openapi.json",
            )
        })
        .method_not_allowed_fallback(async || {
            Failure::new(
                FailureKind::Method,
                "this path has other methods; see /v1/openapi.json",
            )
        })
        .with_state(shared)
}

/// The pool, and what the caller may do
#[utoipa::path(get, path = "/v1/pool", responses(
    (status = 200, body = PoolStatus),
    (status = 403, body = ApiError, description = "The caller has no grant"),
    (status = 503, body = ApiError, description = "The pool cannot answer at the moment"),
))]
async fn get_pool(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
) -> Answer<PoolStatus> {
    let uid = caller.peer.uid;
    shared
        .work(uid, move |service| service.pool_status(&caller.peer))
        .await
        .map(Json)
}

macro_rules! cpu_changes {
    ($($(#[$doc:meta])* $function:ident, $path:literal, $change:expr;)*) => {$(
        $(#[$doc])*
        #[utoipa::path(post, path = $path, request_body = PoolCpuChange, responses(
            (status = 200, body = PoolStatus, description = "The change is in force"),
            (status = 400, body = ApiError, description = "The request cannot be read"),
            (status = 403, body = ApiError, description = "The caller may not change the pool"),
            (status = 408, body = ApiError, description = "The request did not come in time"),
            (status = 409, body = ApiError, description = "What is reserved or pinned does not permit it, or \
                another process owns a host CPU"),
            (status = 413, body = ApiError, description = "The request is too long"),
            (status = 415, body = ApiError, description = "The request is not JSON"),
            (status = 422, body = ApiError, description = "The change makes no sense"),
            (status = 503, body = ApiError, description = "The pool cannot answer at the moment"),
        ))]
        async fn $function(
            State(shared): State<Shared>,
            Extension(caller): Extension<Caller>,
            request: Request,
        ) -> Answer<PoolStatus> {
            let change: PoolCpuChange = change_of(request).await?;
            let uid = caller.peer.uid;
            let work = move |service: &Service| {
                service.change_host_cpus(&caller.peer, $change, &change.host_cpus)?;
                service.pool_status(&caller.peer)
            };
            shared.work(uid, work).await.map(Json)
        }
    )*};
}

cpu_changes! {
    /// Gives the pool more host CPUs; answers when vCPUs can run there
    add_cpus, "/v1/pool/cpus/add", CpuChange::Add;
    /// Has the pool give host CPUs up; answers when nothing of it runs there any more
    remove_cpus, "/v1/pool/cpus/remove", CpuChange::Remove;
}

/// All guests
#[utoipa::path(get, path = "/v1/guests", responses(
    (status = 200, body = GuestList),
    (status = 403, body = ApiError, description = "The caller has no grant"),
    (status = 503, body = ApiError, description = "The pool cannot answer at the moment"),
))]
async fn get_guests(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
) -> Answer<GuestList> {
    let uid = caller.peer.uid;
    shared
        .work(uid, move |service| service.guests(&caller.peer))
        .await
        .map(Json)
}

/// One guest
#[utoipa::path(get, path = "/v1/guests/{name}", params(("name" = String, Path)), responses(
    (status = 200, body = Guest),
    (status = 400, body = ApiError, description = "The name cannot be read"),
    (status = 403, body = ApiError, description = "The caller has no grant"),
    (status = 404, body = ApiError, description = "There is no such guest"),
    (status = 503, body = ApiError, description = "The pool cannot answer at the moment"),
))]
async fn get_guest(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    name: Named,
) -> Answer<Guest> {
    let name = name_of(name)?;
    let uid = caller.peer.uid;
    shared
        .work(uid, move |service| service.guest(&caller.peer, &name))
        .await
        .map(Json)
}

/// Gives a guest another reservation, another weight or other host CPUs; answers with the guest
#[utoipa::path(patch, path = "/v1/guests/{name}", params(("name" = String, Path)),
    request_body = GuestChange,
    responses(
        (status = 200, body = Guest, description = "The change is in force"),
        (status = 400, body = ApiError, description = "The request cannot be read"),
        (status = 403, body = ApiError, description = "The caller may not change it, or not to that"),
        (status = 404, body = ApiError, description = "There is no such guest"),
        (status = 408, body = ApiError, description = "The request did not come in time"),
        (status = 409, body = ApiError, description = "It does not fit; would_fit has what does"),
        (status = 413, body = ApiError, description = "The request is too long"),
        (status = 415, body = ApiError, description = "The request is not JSON"),
        (status = 422, body = ApiError, description = "The change makes no sense"),
        (status = 503, body = ApiError, description = "The pool cannot answer at the moment"),
    ))]
async fn patch_guest(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    name: Named,
    request: Request,
) -> Answer<Guest> {
    let name = name_of(name)?;
    let change = change_of(request).await?;
    let uid = caller.peer.uid;
    let work = move |service: &Service| service.change(&caller.peer, &name, &change);
    shared.work(uid, work).await.map(Json)
}

/// Kills the process of a guest
#[utoipa::path(delete, path = "/v1/guests/{name}", params(("name" = String, Path)), responses(
    (status = 204, description = "Its process was killed; the guest leaves"),
    (status = 400, body = ApiError, description = "The name cannot be read"),
    (status = 403, body = ApiError, description = "The caller may not kill it"),
    (status = 404, body = ApiError, description = "There is no such guest"),
    (status = 409, body = ApiError, description = "The host refuses"),
    (status = 503, body = ApiError, description = "The pool cannot answer at the moment"),
))]
async fn delete_guest(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    name: Named,
) -> Done {
    order(shared, caller, name, Service::kill).await
}

macro_rules! orders {
    ($($(#[$doc:meta])* $function:ident, $path:literal, $service:ident, $call:expr;)*) => {$(
        $(#[$doc])*
        #[utoipa::path(post, path = $path, params(("name" = String, Path)), responses(
            (status = 204, description = "Done"),
            (status = 400, body = ApiError, description = "The name cannot be read"),
            (status = 403, body = ApiError, description = "The caller may not do that"),
            (status = 404, body = ApiError, description = "There is no such guest"),
            (status = 409, body = ApiError, description = "The guest is not in a state for that"),
            (status = 503, body = ApiError, description = "The pool cannot answer at the moment"),
        ))]
        async fn $function(
            State(shared): State<Shared>,
            Extension(caller): Extension<Caller>,
            name: Named,
        ) -> Done {
            let call: fn(&Service, &Peer, &str) -> Result<(), Failure> = $call;
            order(shared, caller, name, call).await
        }
    )*};
}

orders! {
    /// Pauses a guest; answers when none of its vCPUs runs any more
    pause, "/v1/guests/{name}/pause", service, |service, peer, name| service.pause(peer, name);
    /// Resumes a guest that is paused
    resume, "/v1/guests/{name}/resume", service, |service, peer, name| service.resume(peer, name);
    /// Presses the guest's ACPI power button
    power_button, "/v1/guests/{name}/power-button", service,
        |service, peer, name| service.order(peer, name, Order::PowerButton);
    /// Ends the guest as a power cut does
    power_off, "/v1/guests/{name}/power-off", service,
        |service, peer, name| service.order(peer, name, Order::PowerOff);
    /// Resets the guest, which then boots anew
    reset, "/v1/guests/{name}/reset", service, |service, peer, name| service.order(peer, name, Order::Reset);
}

/// What happens from now on, one JSON object in each line, until the client closes the connection
#[utoipa::path(get, path = "/v1/events", responses(
    (status = 200, body = Event, content_type = "application/jsonl"),
    (status = 403, body = ApiError, description = "The caller has no grant"),
))]
async fn get_events(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Failure> {
    shared.service.check_see(&caller.peer)?;
    caller.follows.store(true, Ordering::Release);
    let lines = stream::unfold(shared.service.events().follow(), next_line);
    let kind = [(header::CONTENT_TYPE, "application/jsonl")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

/// The next line for a client that follows the events; `None`: there are no more.
async fn next_line(
    mut events: Receiver<Event>,
) -> Option<(Result<Bytes, Infallible>, Receiver<Event>)> {
    let event = match events.recv().await {
        Ok(event) => event,
        Err(RecvError::Lagged(count)) => Event {
            time_ms: 0,
            kind: EventKind::Lost { count },
        },
        Err(RecvError::Closed) => return None,
    };
    let mut line = serde_json::to_vec(&event).ok()?;
    line.push(b'\n');
    Some((Ok(line.into()), events))
}

/// This description of the API
#[utoipa::path(get, path = "/v1/openapi.json", responses((status = 200, description = "OpenAPI 3.1")))]
async fn get_document() -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    let text = Described::openapi().to_pretty_json().unwrap_or_default();
    (kind, text + "\n").into_response()
}

/// The state of the scheduler, as the control socket of a run has it
#[utoipa::path(get, path = "/snapshot", responses(
    (status = 200, description = "See docs/control.md"),
    (status = 403, body = ApiError, description = "The caller has no grant"),
    (status = 503, body = ApiError, description = "The pool cannot answer at the moment"),
))]
async fn get_snapshot(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Failure> {
    let caller_uid = caller.peer.uid;
    let work = move |service: &Service| {
        service.check_see(&caller.peer)?;
        Ok(service.reader.snapshot())
    };
    Ok(Json(shared.work(caller_uid, work).await?).into_response())
}

/// Metrics for Prometheus
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, description = "See docs/metrics.md",
        content((String = "application/openmetrics-text"), (String = "text/plain"))),
    (status = 403, body = ApiError, description = "The caller has no grant"),
    (status = 503, body = ApiError, description = "The pool cannot answer at the moment"),
))]
async fn get_metrics(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let accepts = |format: &str| {
        let mut lines = headers.get_all(header::ACCEPT).iter();
        lines.any(|line| line.to_str().is_ok_and(|line| line.contains(format)))
    };
    let classic_only = accepts("text/plain") && !accepts("application/openmetrics-text");
    let caller_uid = caller.peer.uid;
    let work = move |service: &Service| {
        service.check_see(&caller.peer)?;
        let numbers = service.reader.metrics();
        Ok(baton_observe::metrics::exposition(&numbers, classic_only))
    };
    let (kind, text) = shared.work(caller_uid, work).await?;
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

type Answer<T> = Result<Json<T>, Failure>;
type Done = Result<StatusCode, Failure>;

fn name_of(name: Named) -> Result<String, Failure> {
    match name {
        Ok(Path(name)) => Ok(name),
        Err(error) => Err(Failure::new(FailureKind::Malformed, error.body_text())),
    }
}

/// Gives the guest `name` the order `give`.
async fn order(
    shared: Shared,
    caller: Caller,
    name: Named,
    give: impl FnOnce(&Service, &Peer, &str) -> Result<(), Failure> + Send + 'static,
) -> Done {
    let name = name_of(name)?;
    let uid = caller.peer.uid;
    let work = move |service: &Service| give(service, &caller.peer, &name);
    shared.work(uid, work).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The change in the body of `request`.
async fn change_of<T: DeserializeOwned>(request: Request) -> Result<T, Failure> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let is_json = |kind: &str| {
        let name = kind.split(';').next().unwrap_or_default();
        name.trim().eq_ignore_ascii_case("application/json")
    };
    if kind.is_some_and(|kind| !kind.to_str().is_ok_and(is_json)) {
        let what = "the change has to be application/json";
        return Err(Failure::new(FailureKind::MediaType, what));
    }
    match timeout(PATIENCE, to_bytes(request.into_body(), MAX_BODY)).await {
        Ok(Ok(body)) => serde_json::from_slice(&body).map_err(unreadable),
        Ok(Err(_)) => Err(Failure::new(
            FailureKind::TooLong,
            format!("the request was cut off, or is longer than {MAX_BODY} bytes"),
        )),
        Err(_) => Err(Failure::new(
            FailureKind::Slow,
            "the request did not come in time",
        )),
    }
}

fn unreadable(error: serde_json::Error) -> Failure {
    let kind = match error.classify() {
        serde_json::error::Category::Data => FailureKind::Senseless,
        _ => FailureKind::Malformed,
    };
    Failure::new(kind, format!("the change cannot be read: {error}"))
}

/// The handlers, for the description of the API.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "baton pool",
        description = "Guests of a pool, on a Unix socket",
        version = "1"
    ),
    paths(
        get_pool,
        add_cpus,
        remove_cpus,
        get_guests,
        get_guest,
        patch_guest,
        delete_guest,
        pause,
        resume,
        power_button,
        power_off,
        reset,
        get_events,
        get_document,
        get_snapshot,
        get_metrics
    )
)]
pub(super) struct Described;
