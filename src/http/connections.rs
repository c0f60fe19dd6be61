//! Connections: accepted here, each served by the routes until it ends.
//!
//! `HttpServer` of actix-web would do it too, but wakes four times a second as long as it exists, to
//! have the time at hand for its answers. That clock belongs to an `HttpService`; one for each
//! connection ends with it, and a service that nobody asks sleeps (decision 19).

mod socket;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::time::Duration;

use actix_http::{HttpService, Request};
use actix_service::map_config;
use actix_web::dev::{AppConfig, Service, ServiceFactory, ServiceResponse, fn_factory};
use actix_web::web::Data;
use futures::future::{ready, select_all};
use simplebackup_actors::SERVER_LOG;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

pub(super) use self::socket::Lifeline;
use self::socket::Socket;
use super::unread::Answer;
use super::{Shared, routes};

/// How long a client may take to send its request's head, and be silent between two requests.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may take to be read by a client that still sends, until it is cut off.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections beyond this wait. Probes and scrapers need a handful; the rest is for those that
/// open many and send nothing, until `CLIENT_TIMEOUT` ends them. Each takes a file descriptor, of
/// which a process often has 1024: backups need some too.
const CONNECTIONS_MAX: usize = 256;

/// Connections that the system keeps for us until we accept them; as many as with `HttpServer`.
const BACKLOG: u32 = 1024;

/// The pause after a connection could not be accepted, such as for want of file descriptors: the
/// next attempt would fail at once too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Listens on each address that `address` stands for; fails if none can be had.
pub(super) fn bind(address: &str) -> io::Result<Vec<TcpListener>> {
    let (bound, refused): (Vec<_>, Vec<_>) =
        address.to_socket_addrs()?.map(bind_one).partition(Result::is_ok);
    if bound.is_empty() {
        let unknown = || io::Error::new(io::ErrorKind::NotFound, "it stands for no address");
        return Err(refused.into_iter().find_map(Result::err).unwrap_or_else(unknown));
    }
    bound.into_iter().collect()
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // The port is free again as soon as the last service has ended.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts connections and serves them, until it is dropped: so are they then.
pub(super) async fn serve(listeners: Vec<TcpListener>, shared: Data<Shared>) {
    // What routes can be told of where they are called from; none asks.
    let routes = map_config(routes(shared), |()| AppConfig::default());
    let Ok(routes) = routes.new_service(()).await.map(Rc::new) else {
        tracing::error!(target: SERVER_LOG, "ERROR: The routes could not be set up; this is a defect, please report it");
        return;
    };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = accept(&listeners), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn_local(converse(stream, peer, Rc::clone(&routes)));
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(
                        target: SERVER_LOG,
                        "WARNING: A connection could not be accepted: {error}"
                    );
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            // A panic has been told by its hook, and ends one connection alone.
            Some(_ended) = connections.join_next() => {}
        }
    }
}

async fn accept(listeners: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    let accepting = listeners.iter().map(|listener| Box::pin(listener.accept()));
    select_all(accepting).await.0
}

/// Returns whether it was the client that gave up, so that the next one may be accepted at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Answers the requests of one connection.
async fn converse<R>(stream: TcpStream, peer: SocketAddr, routes: Rc<R>)
where
    R: Service<Request, Response = ServiceResponse<Answer>, Error = actix_web::Error> + 'static,
{
    let http = HttpService::build()
        .on_connect_ext(|socket: &Socket, data| drop(data.insert(socket.lifeline())))
        .client_request_timeout(CLIENT_TIMEOUT)
        .keep_alive(CLIENT_TIMEOUT)
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        .h1(fn_factory(move || ready(Ok::<_, ()>(Rc::clone(&routes)))));
    // Err: cannot be, the routes are there already.
    let Ok(http) = http.new_service(()).await else { return };
    if let Err(error) = http.call((Socket::new(stream), Some(peer))).await {
        tracing::debug!(target: SERVER_LOG, "A connection ended: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `localhost` stands for two addresses on many machines.
    #[tokio::test]
    async fn every_listener_is_heard() {
        let listeners =
            [bind("127.0.0.1:0"), bind("127.0.0.1:0")].map(|bound| bound.expect("free"));
        let listeners = listeners.into_iter().flatten().collect::<Vec<_>>();
        for listener in [&listeners[1], &listeners[0], &listeners[1]] {
            let address = listener.local_addr().expect("known");
            let client = TcpStream::connect(address).await.expect("connected");
            let (_, peer) = accept(&listeners).await.expect("accepted");
            assert_eq!(peer, client.local_addr().expect("known"));
        }
    }
}
