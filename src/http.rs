//! The routes: health, status, metrics, and a backup on demand.
//!
//! What is no `POST` reads the status board, so that it answers even if an actor hangs. The server
//! starts before the restore and stops last. What clients may cost it is bounded: connections, the
//! time for a request's head, and bodies, of which none is read.

mod connections;
mod unread;
mod view;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use actix_web::dev::{ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::{StatusCode, header};
use actix_web::middleware::from_fn;
use actix_web::web::{Data, get, head, post, resource};
use actix_web::{App, HttpRequest, HttpResponse};
use simplebackup_actors::backup::BackupActor;
use simplebackup_actors::messages::{Backup, BackupRequestError, ResumePruning, Trigger};
use simplebackup_actors::status::{Phase, StatusBoard};
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::secret::Secret;
use simplebackup_engine::text;
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::metrics::Metrics;

/// How long the removal of the mark of a suspension may take: one request and its retries.
const RESUME_TIMEOUT: Duration = Duration::from_secs(30);

/// What the routes see of the service.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The path of the database, to tell instances apart.
    pub(crate) database: String,
    pub(crate) board: StatusBoard,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) token: Option<Secret>,
    /// How long a backup on demand may take.
    pub(crate) backup_timeout: Duration,
    /// The current backup actor, as soon as there is a service.
    pub(crate) backup: watch::Receiver<Option<Addr<BackupActor>>>,
}

/// A server that listens.
pub(crate) struct Listening {
    /// Serves until it is aborted, which ends all connections.
    pub(crate) server: JoinHandle<()>,
    /// Where it really listens: `:0` asks the system for a free port.
    pub(crate) addresses: Vec<SocketAddr>,
}

/// Binds `address` and starts to serve, on this thread.
pub(crate) fn serve(address: &str, shared: Shared) -> io::Result<Listening> {
    let listeners = connections::bind(address)?;
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
    let server = actix::spawn(connections::serve(listeners, Data::new(shared)));
    Ok(Listening { server, addresses })
}

fn routes(
    shared: Data<Shared>,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<unread::Answer>,
        Error = actix_web::Error,
        InitError = (),
    >,
> {
    App::new()
        .app_data(shared)
        .wrap(from_fn(unread::leave_body_unread))
        .service(resource("/health").route(get().to(health)).route(head().to(health)))
        .service(resource("/health/ready").route(get().to(ready)).route(head().to(ready)))
        .service(resource("/health/backup-status").route(get().to(backup_status)))
        .service(resource("/status").route(get().to(status)))
        .service(resource("/metrics").route(get().to(metrics)))
        .service(resource("/backup").route(post().to(back_up)))
        .service(resource("/retention/resume").route(post().to(resume_pruning)))
}

async fn health() -> HttpResponse {
    HttpResponse::Ok().json(view::Health { status: "ok" })
}

async fn ready(shared: Data<Shared>) -> HttpResponse {
    let status = shared.board.read();
    let code =
        if view::is_ready(&status) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    HttpResponse::build(code).json(view::Health { status: view::phase_name(&status) })
}

async fn backup_status(shared: Data<Shared>) -> HttpResponse {
    HttpResponse::Ok().json(view::BackupStatus::of(&shared.board.read()))
}

async fn status(shared: Data<Shared>) -> HttpResponse {
    HttpResponse::Ok().json(view::ServiceStatus::of(&shared.database, &shared.board.read()))
}

async fn metrics(shared: Data<Shared>) -> HttpResponse {
    match shared.metrics.render() {
        Ok(text) => HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(text),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn back_up(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    let actor = match admit(&request, &shared) {
        Ok(actor) => actor,
        Err(refusal) => return *refusal,
    };
    let deadline = Deadline::after(shared.backup_timeout);
    match actor.send(Backup { trigger: Trigger::Manual, deadline }).await {
        Ok(Ok(report)) => HttpResponse::Ok().json(view::Report::of(Trigger::Manual, &report)),
        Ok(Err(error)) => refuse(status_of(&error), &error.to_string()),
        Err(_mailbox) => replaced(),
    }
}

async fn resume_pruning(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    let actor = match admit(&request, &shared) {
        Ok(actor) => actor,
        Err(refusal) => return *refusal,
    };
    let deadline = Deadline::after(RESUME_TIMEOUT);
    match actor.send(ResumePruning { deadline }).await {
        Ok(Ok(())) => HttpResponse::Ok().json(view::Health { status: "resumed" }),
        Ok(Err(error)) => refuse(StatusCode::BAD_GATEWAY, &text::chain(&*error)),
        Err(_mailbox) => replaced(),
    }
}

/// Returns the actor to ask, or the answer to a request that may not ask it now.
fn admit(request: &HttpRequest, shared: &Shared) -> Result<Addr<BackupActor>, Box<HttpResponse>> {
    if let Some(refusal) = refusal(request, shared.token.as_ref()) {
        return Err(Box::new(refusal));
    }
    let unavailable = |text| Err(Box::new(refuse(StatusCode::SERVICE_UNAVAILABLE, text)));
    let status = shared.board.read();
    if !status.enabled {
        return unavailable("backups are switched off; start with --simple-backup");
    }
    if status.phase == Phase::Stopping {
        return unavailable("the service is shutting down");
    }
    match shared.backup.borrow().clone() {
        Some(actor) => Ok(actor),
        None => unavailable("the app has not started yet; try again"),
    }
}

fn replaced() -> HttpResponse {
    let text = "the backup actor is being replaced; try again";
    refuse(StatusCode::SERVICE_UNAVAILABLE, text)
}

fn status_of(error: &BackupRequestError) -> StatusCode {
    match error {
        BackupRequestError::InProgress { .. } | BackupRequestError::InProgressElsewhere { .. } => {
            StatusCode::CONFLICT
        }
        BackupRequestError::ShuttingDown | BackupRequestError::ActorGone => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        BackupRequestError::Failed(_) | BackupRequestError::Panicked(_) => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

/// Returns the answer to a request that does not bring the token, compared in constant time.
fn refusal(request: &HttpRequest, token: Option<&Secret>) -> Option<HttpResponse> {
    let Some(token) = token else {
        let text = "no token is configured; set http.token (SIMPLE_BACKUP_HTTP_TOKEN)";
        return Some(refuse(StatusCode::FORBIDDEN, text));
    };
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    let matches = given
        .is_some_and(|given| bool::from(given.trim().as_bytes().ct_eq(token.expose().as_bytes())));
    if matches {
        return None;
    }
    let text = "wrong or missing token; send \"Authorization: Bearer TOKEN\"";
    let mut refusal = refuse(StatusCode::UNAUTHORIZED, text);
    refusal
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    Some(refusal)
}

fn refuse(status: StatusCode, error: &str) -> HttpResponse {
    HttpResponse::build(status).json(view::Refusal { error })
}
