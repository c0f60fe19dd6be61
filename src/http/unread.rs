//! Bodies of requests: no route has a use for one, so none is read, and none can hold a connection.
//!
//! The server waits for the end of a body whose length is not said (chunked), without a limit of
//! time, once nobody can read it any more. Kept until the answer is sent, it counts as unread: the
//! connection is then closed, as it is for other bodies.

use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::{StatusCode, header};
use actix_web::middleware::Next;
use actix_web::web::Bytes;
use actix_web::{Error, HttpMessage};

use super::refuse;

/// Small bodies are let pass, such as the `{}` that some clients always send.
const BODY_BYTES_MAX: u64 = 1024;

/// Answers without looking at the body; refuses one that is large, or of a length that is not said.
pub(super) async fn leave_body_unread(
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<Answer>, Error> {
    let is_too_large = may_exceed_limit(&request);
    let (request, unread) = request.into_parts();
    let response = if is_too_large {
        let text = "this route takes no body; send the request without one";
        ServiceResponse::new(request, refuse(StatusCode::PAYLOAD_TOO_LARGE, text))
    } else {
        next.call(ServiceRequest::from_parts(request, Payload::None)).await?
    };
    Ok(response.map_body(|_head, body| Answer { body, _unread: unread }))
}

fn may_exceed_limit(request: &ServiceRequest) -> bool {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    // Err: a length that can't be read is refused by the server itself.
    request.chunked().unwrap_or(true) || length.is_some_and(|length| length > BODY_BYTES_MAX)
}

/// The body of an answer, with that of its request.
pub(super) struct Answer {
    body: BoxBody,
    _unread: Payload,
}

impl MessageBody for Answer {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}
