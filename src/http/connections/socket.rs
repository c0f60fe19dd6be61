//! A client's socket, which a client can't hold by doing nothing.
//!
//! An answer that is not taken would wait for as long as the client's system says that it is there;
//! and a client that has gone would keep its stream of events until something is sent to it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// How long a client may take nothing of an answer.
const STALLED: Duration = Duration::from_secs(30);

/// Decides whether a connection ends as soon as its client stops sending. Others may: the answer to
/// what they have sent is still theirs.
#[derive(Debug, Clone, Default)]
pub(in crate::http) struct Lifeline(Arc<AtomicBool>);

impl Lifeline {
    /// From now on nothing is answered to a client that has hung up.
    pub(in crate::http) fn end_with_client(&self) {
        self.0.store(true, Relaxed);
    }
}

/// A connection to a client.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    lifeline: Lifeline,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, lifeline: Lifeline::default(), stalled: None }
    }

    pub(super) fn lifeline(&self) -> Lifeline {
        self.lifeline.clone()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let has_hung_up = buffer.filled().len() == before && buffer.remaining() > 0;
        if has_hung_up && self.lifeline.0.load(Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALLED)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server's end and its client's.
    async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("known");
        let client = TcpStream::connect(address).await.expect("connected");
        (Socket::new(listener.accept().await.expect("accepted").0), client)
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_is_an_error_only_for_a_stream_of_events() {
        let (mut socket, client) = pair().await;
        drop(client);
        assert_eq!(socket.read(&mut [0; 8]).await.expect("the end"), 0);
        socket.lifeline().end_with_client();
        let error = socket.read(&mut [0; 8]).await.expect_err("gone");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_cut_off() {
        let (mut socket, _client) = pair().await;
        // More than the system keeps for it. Time stands still only while nothing can be written.
        let written = async {
            tokio::time::pause();
            socket.write_all(&vec![0; 64 << 20]).await
        };
        assert_eq!(written.await.expect_err("stalled").kind(), io::ErrorKind::TimedOut);
    }
}
