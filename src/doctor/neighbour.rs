//! The port of our routes: free, or taken. What answers there may be simplebackup itself, which
//! knows how long its last backup took.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use simplebackup_engine::doctor::Finding;
use simplebackup_engine::work_dir::canonical;
use tokio::net::TcpSocket;

use crate::commands::asked_at;
use crate::config::Config;

/// The name of the check.
pub(super) const PORT: &str = "http.port";

/// How long whoever listens there may take for each answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A simplebackup that answers at our address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Neighbour {
    /// The database that it works on.
    pub(super) database: String,
    /// How long its last backup took.
    pub(super) last_backup: Option<Duration>,
}

/// Looks at the address, and asks whoever has it.
pub(super) async fn examine(config: &Config) -> (Finding, Option<Neighbour>) {
    let Some(address) = &config.http_address else {
        return (Finding::skipped(PORT, "http.address is \"off\""), None);
    };
    match is_free(address) {
        Ok(()) => (Finding::ok(PORT, format!("{address} is free")), None),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => taken(config, address).await,
        Err(error) => {
            let next = "choose another http.address (--http), or \"off\"";
            (Finding::failure(PORT, format!("{address} cannot be had: {error}"), next), None)
        }
    }
}

/// Binds to the address without listening: a service that starts meanwhile does not notice.
fn is_free(address: &str) -> io::Result<()> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "it stands for no address");
    for address in address.to_socket_addrs()? {
        match bind(address) {
            Ok(_socket) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn taken(config: &Config, address: &str) -> (Finding, Option<Neighbour>) {
    let stranger = || {
        let found = format!("{address} is in use by another program");
        Finding::failure(PORT, found, "choose another http.address (--http), or \"off\"")
    };
    let Ok(Some(neighbour)) = ask(address).await else { return (stranger(), None) };
    if canonical(Path::new(&neighbour.database)) == canonical(&config.database) {
        let found = format!("simplebackup answers at {address}: the service runs");
        return (Finding::ok(PORT, found), Some(neighbour));
    }
    let found = format!(
        "{address} is in use by the simplebackup of another database, {}",
        neighbour.database
    );
    let next = "give each its own http.address (--http)";
    (Finding::failure(PORT, found, next), None)
}

/// Asks who answers there; nothing for whom we don't know.
async fn ask(address: &str) -> reqwest::Result<Option<Neighbour>> {
    simplebackup_engine::store::install_tls();
    let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?;
    let base = format!("http://{}", asked_at(address));
    let health = client.get(format!("{base}/health")).send().await?;
    if !health.status().is_success() {
        return Ok(None);
    }
    let status = client.get(format!("{base}/status")).send().await?.bytes().await?;
    Ok(neighbour_of(&status))
}

fn neighbour_of(status: &[u8]) -> Option<Neighbour> {
    let status: Value = serde_json::from_slice(status).ok()?;
    let database = status.get("database")?.as_str()?.to_owned();
    let took = status.pointer("/last_report/took_ms").and_then(Value::as_u64);
    Some(Neighbour { database, last_backup: took.map(Duration::from_millis) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_of_ours_makes_a_neighbour() {
        let status = br#"{"database": "/srv/app.db", "last_report": {"took_ms": 1500}}"#;
        let neighbour = neighbour_of(status).expect("ours");
        assert_eq!(neighbour.database, "/srv/app.db");
        assert_eq!(neighbour.last_backup, Some(Duration::from_millis(1500)));
        let fresh = neighbour_of(br#"{"database": "/srv/app.db", "last_report": null}"#);
        assert_eq!(fresh.expect("ours").last_backup, None);
        for other in [&b"<html>"[..], b"{}", b"[]", b""] {
            assert_eq!(neighbour_of(other), None);
        }
    }

    #[tokio::test]
    async fn a_look_takes_no_port() {
        let address = "127.0.0.1:0".parse().expect("an address");
        let socket = bind(address).expect("free");
        let taken = socket.local_addr().expect("known");
        let listener = tokio::net::TcpListener::bind(taken).await.expect("free beside a look");
        drop(socket);
        let refused = is_free(&taken.to_string()).expect_err("somebody listens");
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
    }
}
