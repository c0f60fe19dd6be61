//! `GET /events`: the status by server-sent events, while somebody listens.
//!
//! One event for each change of the status board, a few a second at most, and what progress a run
//! makes. Nobody is told by the actors: each listener waits on the watch channel, and without
//! listeners nothing waits and nothing wakes. A listener has a seat, of which there are few; it loses
//! it when its client goes, takes nothing any more, or has had it for long enough.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::{StatusCode, header};
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use futures::stream;
use simplebackup_actors::status::Status;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until};

use super::connections::Lifeline;
use super::view::{ServiceStatus, Timed};
use super::{Shared, refuse};

/// Listeners at a time: some people with some tabs each. Others ask `GET /status` now and then, as
/// the page does by itself.
const SEATS: usize = 16;

/// The shortest time between two events for one listener.
const PAUSE: Duration = Duration::from_millis(250);

/// How often the progress of a run is looked at, which changes without a word.
const LOOK_AT_PROGRESS: Duration = Duration::from_millis(500);

/// How long a listener hears nothing at most. Proxies close what is silent for a minute; and what
/// time alone changes, such as a backup that is late, shows by then.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// How long a stream lasts. The page opens another at once; a client that vanished without a word
/// does not.
const STREAM_MAX: Duration = Duration::from_mins(15);

/// The seats for listeners.
#[derive(Debug, Clone)]
pub(crate) struct Seats(Arc<Semaphore>);

impl Default for Seats {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SEATS)))
    }
}

pub(super) async fn stream(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    let Ok(seat) = Arc::clone(&shared.seats.0).try_acquire_owned() else {
        let text = format!("{SEATS} listen already; ask GET /status now and then instead");
        return refuse(StatusCode::SERVICE_UNAVAILABLE, &text);
    };
    if let Some(lifeline) = request.conn_data::<Lifeline>() {
        lifeline.end_with_client();
    }
    let listener = Listener {
        changes: shared.board.subscribe(),
        shared,
        heard: None,
        heard_at: Instant::now(),
        until: Instant::now() + STREAM_MAX,
        _seat: seat,
    };
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // Asks nginx not to wait until it has a buffer full.
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(stream::unfold(listener, Listener::next))
}

/// Who listens.
struct Listener {
    shared: Data<Shared>,
    changes: watch::Receiver<Status>,
    /// What it was told last, and when.
    heard: Option<ServiceStatus>,
    heard_at: Instant,
    until: Instant,
    _seat: OwnedSemaphorePermit,
}

impl Listener {
    /// Waits until there is something to say; nothing when the stream is over.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let text = if self.heard.is_none() { self.news()? } else { self.wait_for_news().await? };
        self.heard_at = Instant::now();
        Some((Ok(Bytes::from(text)), self))
    }

    async fn wait_for_news(&mut self) -> Option<String> {
        sleep_until(self.heard_at + PAUSE).await;
        loop {
            let is_busy = {
                let status = self.changes.borrow();
                status.current.is_some() || status.drill.is_some()
            };
            let silent_until = self.heard_at + HEARTBEAT;
            let look_at = if is_busy { Instant::now() + LOOK_AT_PROGRESS } else { silent_until };
            let look_at = look_at.min(silent_until).min(self.until);
            tokio::select! {
                // Err: the board is gone, and the service with it.
                changed = self.changes.changed() => changed.ok()?,
                () = sleep_until(look_at) => {}
            }
            if Instant::now() >= self.until {
                return None;
            }
            if let Some(news) = self.news() {
                return Some(news);
            }
            if Instant::now() >= silent_until {
                // Not a comment, which a browser keeps to itself: the page has to notice silence.
                return Some("event: alive\ndata: {}\n\n".to_owned());
            }
        }
    }

    /// Returns the status as an event, if it is another than was heard last.
    fn news(&mut self) -> Option<String> {
        let status = self.changes.borrow_and_update().clone();
        let status = ServiceStatus::of(&self.shared, &status);
        if self.heard.as_ref() == Some(&status) {
            return None;
        }
        // Err: a struct of numbers and texts is always JSON.
        let json = serde_json::to_string(&Timed::now(&self.shared, &status)).ok()?;
        self.heard = Some(status);
        Some(format!("retry: 2000\nevent: status\ndata: {json}\n\n"))
    }
}
