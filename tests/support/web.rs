//! A web server that keeps what it is sent, and answers as a test wants it to: the receiver of
//! pings and of the webhook.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::process::{PATIENCE, eventually};

/// What the server does with a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reply {
    /// Answers with this status and this text.
    Status(u16, &'static str),
    /// Sends whoever asks to this address.
    Redirect(&'static str),
    /// Takes the request and never answers.
    Hang,
    /// Takes the request and closes the connection.
    Die,
}

/// A request, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// `POST /path?query`.
    pub(crate) line: String,
    /// All of the head, in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Received {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// The server. Its threads end with the test binary.
#[derive(Debug, Clone)]
pub(crate) struct WebServer {
    address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    received: Vec<Received>,
    /// What comes next; then all is answered with 200.
    replies: Vec<Reply>,
}

impl WebServer {
    /// Starts a server that answers the first requests in these ways, and all others with 200.
    pub(crate) fn start(replies: &[Reply]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("known").to_string();
        let mut replies = replies.to_vec();
        replies.reverse();
        let state = Arc::new(Mutex::new(State { received: Vec::new(), replies }));
        let server = Self { address, state };
        let serving = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (server, stream) = (serving.clone(), stream.expect("accepted"));
                std::thread::spawn(move || server.serve(stream));
            }
        });
        server
    }

    /// Returns the address of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Returns what came so far, in order.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.state().received.clone()
    }

    /// Returns the first lines of what came so far: method and path.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.received().into_iter().map(|received| received.line).collect()
    }

    /// Waits until so many requests came, and returns them.
    #[track_caller]
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Received> {
        eventually("the requests came", || self.received().len() >= count);
        self.received()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut stream: TcpStream) {
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        let Some(received) = read(&mut stream) else { return };
        let reply = {
            let mut state = self.state();
            state.received.push(received);
            state.replies.pop().unwrap_or(Reply::Status(200, "OK"))
        };
        match reply {
            Reply::Status(status, text) => {
                let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}", text.len());
                // Err: whoever asked has gone.
                let _gone = write!(stream, "{head}\r\nConnection: close\r\n\r\n{text}");
            }
            Reply::Redirect(to) => {
                let head = format!("HTTP/1.1 307 x\r\nLocation: {to}\r\nContent-Length: 0");
                let _gone = write!(stream, "{head}\r\nConnection: close\r\n\r\n");
            }
            Reply::Hang => std::thread::sleep(PATIENCE + Duration::from_mins(1)),
            Reply::Die => {}
        }
    }
}

/// Reads one request; nothing if the connection brought none.
fn read(stream: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let lower = head.to_lowercase();
            let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().expect("a number"));
            if body.len() >= length {
                let line = head.lines().next()?.strip_suffix(" HTTP/1.1")?.to_owned();
                return Some(Received { line, head: lower, body: body.to_owned() });
            }
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
        }
    }
}
