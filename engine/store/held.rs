//! A PUT whose last bytes are held back until it is known whether it may be stored.
//!
//! The rest travels meanwhile. A store makes an object of a request that is complete, and of nothing less: it was told
//! how many bytes there are, and their SHA-256.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use object_store::PutPayload;
use object_store::client::{HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody};
use thiserror::Error;
use tokio::sync::watch;

/// Why a request that was sent ahead came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
enum Vain {
    /// Whatever the store says, it says it of something else than what it was sent.
    #[error("the store answered before it had all of the request")]
    EarlyAnswer,
    /// It is not to be stored, or in another way.
    #[error("the rest of the request is not to be sent")]
    Unwanted,
}

/// Holds the last chunk back: until it is released, or for good, when it is dropped.
#[derive(Debug)]
pub(super) struct Hold(watch::Sender<bool>);

impl Hold {
    /// Lets the last chunk go.
    pub(super) fn release(&self) {
        self.0.send_replace(true);
    }
}

/// Goes with a request, as one of its extensions, and replaces its body.
#[derive(Debug, Clone)]
pub(super) struct Held {
    payload: PutPayload,
    is_released: watch::Receiver<bool>,
}

impl Held {
    /// Holds the last chunk of the payload back.
    pub(super) fn back(payload: PutPayload) -> (Hold, Self) {
        let (hold, is_released) = watch::channel(false);
        (Hold(hold), Self { payload, is_released })
    }

    /// Sends the request. If it is never released its connection ends before its body does.
    ///
    /// # Errors
    ///
    /// None that the client would try again by itself: above it somebody knows whether it is released.
    pub(super) async fn send(
        self,
        client: &reqwest::Client,
        request: HttpRequest,
    ) -> Result<HttpResponse, HttpError> {
        let (head, _payload) = request.into_parts();
        let url = head.uri.to_string().parse().map_err(failure)?;
        let mut request = reqwest::Request::new(head.method, url);
        *request.headers_mut() = head.headers;
        let is_whole = Arc::new(AtomicBool::new(false));
        *request.body_mut() = Some(reqwest::Body::wrap_stream(self.body(Arc::clone(&is_whole))));
        let answer = client.execute(request).await.map_err(failure)?;
        if !is_whole.load(Relaxed) {
            return Err(failure(Vain::EarlyAnswer));
        }
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = answer.bytes().await.map_err(failure)?;
        let mut answer = HttpResponse::new(HttpResponseBody::from(body));
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        Ok(answer)
    }

    /// Returns the chunks, and sets `is_whole` with the last one.
    fn body(
        self,
        is_whole: Arc<AtomicBool>,
    ) -> impl Stream<Item = Result<Bytes, Vain>> + Send + 'static {
        let mut chunks: Vec<Bytes> = self.payload.into_iter().collect();
        let last = chunks.pop().unwrap_or_default();
        let mut is_released = self.is_released;
        let held = async move {
            let released = is_released.wait_for(|is_released| *is_released).await;
            released.map_err(|_dropped| Vain::Unwanted)?;
            is_whole.store(true, Relaxed);
            Ok(last)
        };
        stream::iter(chunks).map(Ok).chain(stream::once(held))
    }
}

fn failure<E: std::error::Error + Send + Sync + 'static>(error: E) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, error)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn chunks() -> [Bytes; 3] {
        ["a", "b", "c"].map(|chunk| Bytes::from_static(chunk.as_bytes()))
    }

    #[tokio::test]
    async fn all_but_the_last_chunk_goes_ahead() {
        let [a, b, c] = chunks();
        let (keeper, held) = Held::back(chunks().into_iter().collect());
        let is_whole = Arc::new(AtomicBool::new(false));
        let mut body = Box::pin(held.clone().body(Arc::clone(&is_whole)));
        let mut ready = || body.next().now_or_never();
        assert_eq!(ready(), Some(Some(Ok(a))));
        assert_eq!(ready(), Some(Some(Ok(b))));
        assert_eq!(ready(), None, "the last one waits");
        assert!(!is_whole.load(Relaxed));
        keeper.release();
        assert_eq!(ready(), Some(Some(Ok(c))));
        assert_eq!(ready(), Some(None));
        assert!(is_whole.load(Relaxed));
        // Sent again, as the client does: nothing waits any more.
        let again = held.body(is_whole).collect::<Vec<_>>().now_or_never();
        assert_eq!(again.map(|all| all.len()), Some(3));
    }

    /// Else the connection, and the payload with it, would stay as long as the server likes.
    #[tokio::test]
    async fn what_is_never_released_ends_with_an_error() {
        let (keeper, held) = Held::back(chunks().into_iter().collect());
        let is_whole = Arc::new(AtomicBool::new(false));
        let mut body = Box::pin(held.body(Arc::clone(&is_whole)).skip(2));
        assert_eq!(body.next().now_or_never(), None);
        drop(keeper);
        assert_eq!(body.next().now_or_never(), Some(Some(Err(Vain::Unwanted))));
        assert!(!is_whole.load(Relaxed));
    }
}
