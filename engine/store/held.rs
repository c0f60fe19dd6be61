//! A PUT whose last bytes are held back until it is known whether it may be stored.
//!
//! The rest travels meanwhile. A store makes an object of a request that is complete, and of nothing less: it was told
//! how many bytes there are, and their SHA-256.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use object_store::PutPayload;
use object_store::client::{HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody};
use tokio::sync::watch;

/// Goes with a request, as one of its extensions, and replaces its body.
#[derive(Debug, Clone)]
pub(super) struct Held {
    payload: PutPayload,
    is_released: Arc<watch::Sender<bool>>,
}

impl Held {
    /// Holds the last chunk of the payload back.
    pub(super) fn back(payload: PutPayload) -> Self {
        Self { payload, is_released: Arc::default() }
    }

    /// Lets the last chunk go.
    pub(super) fn release(&self) {
        self.is_released.send_replace(true);
    }

    /// Sends the request. Dropped before it is released, the connection ends before the body does.
    ///
    /// # Errors
    ///
    /// None that the client would try again by itself.
    pub(super) async fn send(
        self,
        client: &reqwest::Client,
        request: HttpRequest,
    ) -> Result<HttpResponse, HttpError> {
        let (head, _payload) = request.into_parts();
        let url = head.uri.to_string().parse().map_err(failure)?;
        let mut request = reqwest::Request::new(head.method, url);
        *request.headers_mut() = head.headers;
        *request.body_mut() = Some(reqwest::Body::wrap_stream(self.body()));
        let answer = client.execute(request).await.map_err(failure)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = answer.bytes().await.map_err(failure)?;
        let mut answer = HttpResponse::new(HttpResponseBody::from(body));
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        Ok(answer)
    }

    fn body(self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
        let mut chunks: Vec<Bytes> = self.payload.into_iter().collect();
        let last = chunks.pop();
        let mut released = self.is_released.subscribe();
        let held = async move {
            // The sender is ours, and so never gone before.
            let _released = released.wait_for(|is_released| *is_released).await;
            drop(self.is_released);
            stream::iter(last)
        };
        stream::iter(chunks).chain(stream::once(held).flatten()).map(Ok)
    }
}

fn failure<E: std::error::Error + Send + Sync + 'static>(error: E) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, error)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn all_but_the_last_chunk_goes_ahead() {
        let chunks = ["a", "b", "c"].map(|chunk| Bytes::from_static(chunk.as_bytes()));
        let held = Held::back(chunks.iter().cloned().collect());
        let mut body = Box::pin(held.clone().body());
        let mut ready = || body.next().now_or_never();
        assert_eq!(ready(), Some(Some(Ok(chunks[0].clone()))));
        assert_eq!(ready(), Some(Some(Ok(chunks[1].clone()))));
        assert_eq!(ready(), None, "the last one waits");
        held.release();
        assert_eq!(ready(), Some(Some(Ok(chunks[2].clone()))));
        assert_eq!(ready(), Some(None));
        // Sent again, as the client does: nothing waits any more.
        assert_eq!(held.body().collect::<Vec<_>>().now_or_never().map(|all| all.len()), Some(3));
    }
}
