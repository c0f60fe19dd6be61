//! The routes: the status page and what it reads, health, metrics, a backup or a drill on demand.
//!
//! What is no `POST` reads the status board, so that it answers even if an actor hangs. The server
//! starts before the restore and stops last. What clients may cost it is bounded: connections, streams
//! of events, the time for a request's head, requests to the store, and bodies, of which none is read.

mod connections;
mod events;
mod lookup;
mod page;
mod recipes;
mod unread;
mod view;
mod warnings;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix_web::dev::{ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::{StatusCode, header};
use actix_web::middleware::from_fn;
use actix_web::web::{Data, get, head, post, resource};
use actix_web::{App, HttpRequest, HttpResponse};
use chrono::{DateTime, Utc};
use simplebackup_actors::messages::{
    Backup, BackupRequestError, ResumePruning, Trigger, Verify, VerifyRequestError,
};
use simplebackup_actors::schedule::Schedule;
use simplebackup_actors::status::{Phase, Status, StatusBoard};
use simplebackup_actors::supervisor::Addresses;
use simplebackup_actors::verdict::{Verdict, verdict};
use simplebackup_engine::clock::Clock;
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::secret::Secret;
use simplebackup_engine::store::BackupStore;
use simplebackup_engine::text;
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) use self::events::Seats;
pub(crate) use self::lookup::Lookup;
use crate::history::History;
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
    pub(crate) history: Arc<History>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) started_at: DateTime<Utc>,
    /// Where backups go and when, as soon as that is known.
    pub(crate) opened: Arc<OnceLock<Opened>>,
    /// What the commands on the page have to name besides it.
    pub(crate) surroundings: Surroundings,
    pub(crate) token: Option<Secret>,
    /// How long a backup on demand may take.
    pub(crate) backup_timeout: Duration,
    /// The current workers, as soon as there is a service.
    pub(crate) workers: watch::Receiver<Option<Addresses>>,
    pub(crate) seats: Seats,
    pub(crate) lookup: Lookup,
}

/// A store that was opened, and when backups of this instance are due.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) store: BackupStore,
    pub(crate) schedule: Schedule,
}

/// What the configuration says of the store that its address does not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    /// The URL of an S3 server other than AWS.
    pub(crate) endpoint: Option<String>,
    /// Whether backups lie on the database's own disk because no store was configured.
    pub(crate) is_beside_database: bool,
    /// The file with the identity that opens encrypted backups.
    pub(crate) identity_file: Option<String>,
}

impl Shared {
    fn verdict(&self, status: &Status) -> Verdict {
        match self.opened.get() {
            Some(opened) => verdict(status, &opened.schedule, self.started_at, self.clock.now()),
            None if status.enabled => Verdict::Starting,
            None => Verdict::Off,
        }
    }

    /// Returns where backups go now: into the line, or beside it.
    fn store(&self, status: &Status) -> Option<BackupStore> {
        let store = &self.opened.get()?.store;
        Some(status.fork.as_ref().map_or_else(|| store.clone(), |f| store.fork(&f.instance)))
    }
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
        .configure(page::serve)
        .service(resource("/history").route(get().to(history)))
        .service(resource("/events").route(get().to(events::stream)))
        .service(resource("/health").route(get().to(health)).route(head().to(health)))
        .service(resource("/health/ready").route(get().to(ready)).route(head().to(ready)))
        .service(resource("/health/backup-status").route(get().to(backup_status)))
        .service(resource("/status").route(get().to(status)))
        .service(resource("/metrics").route(get().to(metrics)))
        .service(resource("/backup").route(post().to(back_up)))
        .service(resource("/verify").route(post().to(verify)))
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
    let status = view::ServiceStatus::of(&shared, &shared.board.read());
    HttpResponse::Ok().json(view::Timed::now(&shared, &status))
}

async fn history(shared: Data<Shared>) -> HttpResponse {
    let status = shared.board.read();
    lookup::begin(&shared, &status);
    HttpResponse::Ok().json(view::HistoryView::of(&shared, &status))
}

async fn metrics(shared: Data<Shared>) -> HttpResponse {
    match shared.metrics.render() {
        Ok(text) => HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(text),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn back_up(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    let workers = match admit(&request, &shared) {
        Ok(workers) => workers,
        Err(refusal) => return *refusal,
    };
    let deadline = Deadline::after(shared.backup_timeout);
    match workers.backup.send(Backup { trigger: Trigger::Manual, deadline }).await {
        Ok(Ok(report)) => HttpResponse::Ok().json(view::Report::of(Trigger::Manual, &report)),
        Ok(Err(error)) => refuse(status_of(&error), &error.to_string()),
        Err(_mailbox) => replaced(),
    }
}

async fn verify(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    let workers = match admit(&request, &shared) {
        Ok(workers) => workers,
        Err(refusal) => return *refusal,
    };
    match workers.verify.send(Verify { trigger: Trigger::Manual }).await {
        Ok(Ok(drilled)) => HttpResponse::Ok().json(view::Verified::of(&drilled)),
        Ok(Err(error)) => refuse(status_of_drill(&error), &error.to_string()),
        Err(_mailbox) => replaced(),
    }
}

async fn resume_pruning(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    let workers = match admit(&request, &shared) {
        Ok(workers) => workers,
        Err(refusal) => return *refusal,
    };
    let deadline = Deadline::after(RESUME_TIMEOUT);
    match workers.backup.send(ResumePruning { deadline }).await {
        Ok(Ok(())) => HttpResponse::Ok().json(view::Health { status: "resumed" }),
        Ok(Err(error)) => refuse(StatusCode::BAD_GATEWAY, &text::chain(&*error)),
        Err(_mailbox) => replaced(),
    }
}

/// Returns the actors to ask, or the answer to a request that may not ask them now.
fn admit(request: &HttpRequest, shared: &Shared) -> Result<Addresses, Box<HttpResponse>> {
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
    match shared.workers.borrow().clone() {
        Some(workers) => Ok(workers),
        None => unavailable("the app has not started yet; try again"),
    }
}

fn replaced() -> HttpResponse {
    let text = "the actor to ask is being replaced; try again";
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
        BackupRequestError::Failed(_)
        | BackupRequestError::Hook(_)
        | BackupRequestError::Panicked(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn status_of_drill(error: &VerifyRequestError) -> StatusCode {
    match error {
        VerifyRequestError::InProgress { .. } => StatusCode::CONFLICT,
        VerifyRequestError::Stopped | VerifyRequestError::ActorGone => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        VerifyRequestError::Failed(_) | VerifyRequestError::Panicked(_) => {
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
