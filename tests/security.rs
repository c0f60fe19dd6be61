//! What strangers can do to the routes, and what the binary keeps to itself.

use std::net::TcpListener;

use crate::support::process::{Machine, POLITE, SNITCH_PATH, TOKEN, ask, eventually, get};
use crate::support::s3::{BUCKET, PREFIX, S3Server};

/// Every process test looks for its secrets; these say all that there is to say, at the lowest
/// level, when all goes well and when nothing does.
#[tokio::test]
async fn secrets_are_in_no_line_at_any_level() {
    let server = S3Server::start().await;
    let address = server.address().to_owned();
    let told = tokio::task::spawn_blocking(move || {
        let snitch = TcpListener::bind("127.0.0.1:0").expect("bound");
        let snitch_url = format!("http://{}{SNITCH_PATH}", snitch.local_addr().expect("known"));
        let mut made = Vec::new();
        for (endpoint, url) in
            [(address.as_str(), snitch_url.as_str()), ("127.0.0.1:9", "http://127.0.0.1:9/hush")]
        {
            let machine = Machine::new();
            machine.create_database(10);
            let mut process = machine.serve_script_with(POLITE, |command| {
                command
                    .env("MINIO_ENDPOINT", endpoint)
                    .env("MINIO_USE_SSL", "false")
                    .env("MINIO_BUCKET", BUCKET)
                    .env("MINIO_PREFIX", PREFIX)
                    .env("AWS_SESSION_TOKEN", "SESSIONhush")
                    .env("SIMPLE_BACKUP_SNITCH_URL", url)
                    .env("SIMPLE_BACKUP_BACKUP_TIMEOUT", "2s")
                    .env("SIMPLE_BACKUP_SHUTDOWN_BACKUP_TIMEOUT", "2s")
                    .env("SIMPLE_BACKUP_LOG_FORMAT", "json")
                    .env("RUST_LOG", "trace");
            });
            // As JSON: the line of the address is an event among many.
            let line = process.wait_for_line("Listening on http://");
            let address = line.split("http://").nth(1).and_then(|rest| rest.split('"').next());
            let address = address.expect("an address").to_owned();
            eventually("the app runs", || get(&address, "/health/ready").status == 200);
            for token in [TOKEN, "WRONGhush"] {
                let header = format!("Authorization: Bearer {token}");
                made.push(ask(&address, "POST /backup", &[&header], "").status);
            }
            process.stop();
        }
        made
    });
    assert_eq!(told.await.expect("no secret"), [200, 401, 500, 401]);
}
