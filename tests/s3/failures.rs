//! Failures that no retry can mend, and waits that a deadline ends: how often the store is asked,
//! and what the error tells the person who has to act.

use std::path::Path;
use std::time::{Duration, Instant};

use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::secret::Secret;
use simplebackup_engine::store::{BackupStore, Fault, Patience};
use simplebackup_engine::text;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;

use super::{
    back_up, back_up_until, restore, restore_until, store_error_of_backup, store_error_of_restore,
};
use crate::support::s3::{
    ACCESS_KEY, BUCKET, PREFIX, Request, S3Server, SECRET_KEY, Trouble, settings,
};
use crate::support::web::{Reply, WebServer};
use crate::support::{START, Site, deadline, files_in, name};

#[tokio::test]
async fn wrong_keys_are_refused_at_once_and_never_printed() {
    const WRONG: &str = "not-the-secret-key-of-the-example";
    let (server, site) = (S3Server::start().await, Site::with_database());
    let mut wrong_secret = server.settings();
    wrong_secret.secret_key = Some(Secret::new(WRONG));
    let mut unknown_user = server.settings();
    unknown_user.access_key = Some(Secret::new("AKIDNOBODY"));
    for (tries, settings) in (1..).zip([wrong_secret, unknown_user]) {
        let store = BackupStore::s3(&settings).expect("sound settings");

        let of_backup = store_error_of_backup(back_up(&site, &store).await);
        let of_restore = store_error_of_restore(restore(&Site::new(), &store).await);

        for error in [of_backup, of_restore] {
            assert_eq!(error.fault, Fault::AccessDenied, "{error:?}");
            let chain = text::chain(&error);
            assert!(chain.contains("check MINIO_ACCESS_KEY and MINIO_SECRET_KEY"), "{chain}");
            let printed = format!("{chain} {error:?} {error:#?} {store:?} {settings:?}");
            assert!(!printed.contains(WRONG) && !printed.contains(SECRET_KEY), "{printed}");
        }
        assert_eq!(server.script().calls(), vec![Request::List; 2 * tries]);
    }
}

#[tokio::test]
async fn a_bucket_that_does_not_exist_is_named_at_once() {
    let (server, site) = (S3Server::start().await, Site::with_database());
    let mut settings = server.settings();
    settings.bucket = "nobodys-bucket".into();
    let store = BackupStore::s3(&settings).expect("sound settings");

    let of_backup = store_error_of_backup(back_up(&site, &store).await);
    let of_restore = store_error_of_restore(restore(&Site::new(), &store).await);

    for error in [of_backup, of_restore] {
        assert_eq!(error.fault, Fault::NoSuchBucket, "{error:?}");
        let text = error.to_string();
        let expect = "list of s3://nobodys-bucket/backups/ failed: no such bucket; \
                      create it, or check MINIO_BUCKET";
        assert!(text.starts_with(expect), "{text}");
    }
    assert_eq!(server.script().calls(), [Request::List; 2]);
}

/// `classify` reads what the client prints: this holds it to the version in use.
#[tokio::test]
async fn store_errors_are_told_apart() {
    let cases = [
        (400, "InvalidArgument", Fault::Refused, 1),
        (400, "RequestTimeTooSkewed", Fault::ClockSkewed, 1),
        (401, "Unauthorized", Fault::AccessDenied, 1),
        (403, "AccessDenied", Fault::AccessDenied, 1),
        (403, "RequestTimeTooSkewed", Fault::ClockSkewed, 1),
        (404, "NoSuchBucket", Fault::NoSuchBucket, 1),
        (408, "RequestTimeout", Fault::Busy, 3),
        (412, "PreconditionFailed", Fault::Changed, 1),
        (425, "TooEarly", Fault::Busy, 1),
        (429, "TooManyRequests", Fault::Busy, 3),
        (500, "InternalError", Fault::Busy, 3),
        (503, "SlowDown", Fault::Busy, 3),
    ];
    let (server, site) = (S3Server::start().await, Site::with_database());
    let store = server.store();
    let key = back_up(&site, &store).await.expect("made").key;
    for (status, code, fault, tries) in cases {
        for kind in [Request::Delete, Request::List] {
            server.script().heal();
            server.script().plan(kind, .., Trouble::Refuse(status, code));
            let before = server.script().count(kind);
            let error = match kind {
                Request::Delete => store.delete(&[key], deadline()).await.pop().expect("refused").1,
                // A list is patient with a busy store.
                _ if fault.is_transient() => continue,
                _ => store.list(deadline(), Patience::FewTries).await.expect_err("refused"),
            };
            let case = format!("{kind:?} {status}: {}", text::chain(&error));
            assert_eq!(error.fault, fault, "{case}");
            assert!(text::chain(&error).contains(code), "{case}");
            assert_eq!(server.script().count(kind) - before, tries, "{case}");
        }
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_named_at_once() {
    let (server, site) = (S3Server::start_with_tls("127.0.0.1").await, Site::with_database());
    let of_backup = store_error_of_backup(back_up(&site, &server.store()).await);
    let of_restore = store_error_of_restore(restore(&Site::new(), &server.store()).await);
    for error in [of_backup, of_restore] {
        assert_eq!(error.fault, Fault::Certificate, "{error:?}");
        let expect = "list of s3://mybucket/backups/ failed: certificate not trusted; point \
                      SSL_CERT_FILE at your authority, or check MINIO_ENDPOINT";
        assert_eq!(error.to_string(), expect);
    }
    assert_eq!(server.connections(), 2, "one for each of the two");
    assert_eq!(server.script().calls(), []);
}

/// As a web server does that stands before a store: no authority to trust would help.
#[tokio::test]
async fn a_store_that_sends_on_to_https_is_said_to_speak_tls_only() {
    let tls = S3Server::start_with_tls("127.0.0.1").await;
    let to: &str = format!("https://{}/{BUCKET}/?list-type=2", tls.address()).leak();
    let server = WebServer::start(&[Reply::Redirect(to); 2]);
    let store = BackupStore::s3(&settings(server.url(""), false)).expect("sound settings");
    let of_backup = store_error_of_backup(back_up(&Site::with_database(), &store).await);
    let of_restore = store_error_of_restore(restore(&Site::new(), &store).await);
    for error in [of_backup, of_restore] {
        assert_eq!(error.fault, Fault::TlsOnly, "{error:?}");
        let expect = "list of s3://mybucket/backups/ failed: the store speaks TLS only; set \
                      MINIO_USE_SSL=true, or https:// in MINIO_ENDPOINT";
        assert_eq!(error.to_string(), expect);
    }
    assert_eq!((server.received().len(), tls.script().calls()), (2, Vec::new()));
}

/// By the real binary, because the variable belongs to a whole process.
#[tokio::test]
async fn ssl_cert_file_names_the_authority_to_trust() {
    for (host, is_trusted) in [("127.0.0.1", true), ("minio.example", false)] {
        let server = S3Server::start_with_tls(host).await;
        server.put(&name(START), b"listed");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let authority = folder.path().join("authority.pem");
        std::fs::write(&authority, server.authority()).expect("written");

        let listed = list_by_binary(&server, &authority).await;

        let printed = String::from_utf8_lossy(&listed.stdout);
        let complaint = String::from_utf8_lossy(&listed.stderr);
        assert_eq!(listed.status.success(), is_trusted, "{host}: {printed} {complaint}");
        assert_eq!(printed.contains(&name(START)), is_trusted, "{host}: {printed}");
        assert_eq!(complaint.contains("certificate not trusted"), !is_trusted, "{complaint}");
        assert_eq!(server.connections(), 1, "{host}");
    }
}

async fn list_by_binary(server: &S3Server, authority: &Path) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_simplebackup"))
        .arg("list")
        .env_clear()
        .env("MINIO_ENDPOINT", server.address())
        .env("MINIO_USE_SSL", "true")
        .env("MINIO_ACCESS_KEY", ACCESS_KEY)
        .env("MINIO_SECRET_KEY", SECRET_KEY)
        .env("MINIO_BUCKET", BUCKET)
        .env("MINIO_PREFIX", PREFIX)
        .env("SSL_CERT_FILE", authority)
        .kill_on_drop(true)
        .output()
        .await
        .expect("run")
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_is_tried_until_the_deadline() {
    // A port that was free a moment ago: connections to it are refused.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let store = BackupStore::s3(&settings(address, false)).expect("sound settings");
    let (site, timeout, started) = (Site::new(), Duration::from_millis(900), Instant::now());

    let restored = restore_until(&site, &store, Deadline::after(timeout)).await;

    let error = store_error_of_restore(restored);
    // The last try comes a fifth of a second before the deadline.
    let least = Duration::from_millis(700);
    assert!((least..timeout * 4).contains(&started.elapsed()), "{:?}", started.elapsed());
    assert_eq!(error.fault, Fault::Unreachable, "{error:?}");
    let chain = text::chain(&error);
    let expect = "list of s3://mybucket/backups/ failed: connection failed; check MINIO_ENDPOINT";
    assert!(chain.starts_with(expect) && chain.contains("Connection refused"), "{chain}");
    assert_eq!(files_in(site.root()), [""; 0]);
}

/// "Timeout" alone would send the reader to the network instead of to the store.
#[tokio::test]
async fn a_deadline_does_not_hide_what_went_wrong_before_it() {
    for kind in [Request::List, Request::Get] {
        let (server, site) = (S3Server::start().await, Site::new());
        server.put(&name(START), b"never read");
        server.script().plan(kind, ..3, Trouble::Refuse(503, "SlowDown"));
        server.script().plan(kind, 3.., Trouble::Hang);
        let deadline = Deadline::after(Duration::from_secs(3));

        let error = store_error_of_restore(restore_until(&site, &server.store(), deadline).await);

        assert_eq!(server.script().count(kind), 4, "{kind:?}");
        assert_eq!(error.fault, Fault::Busy, "{kind:?}");
        assert!(text::chain(&error).contains("SlowDown"), "{kind:?}: {}", text::chain(&error));
    }
}

#[tokio::test]
async fn i5_a_store_that_never_answers_is_left_at_the_deadline() {
    let timeout = Duration::from_millis(1500);
    let (server, site) = (S3Server::start().await, Site::with_database());
    let store = server.store();
    for kind in [Request::List, Request::Put, Request::Get] {
        server.put(&name(START), b"never read");
        server.script().heal();
        server.script().plan(kind, .., Trouble::Hang);
        let deadline = Deadline::after(timeout);
        let asking = Box::pin(async {
            if kind == Request::Get {
                store_error_of_restore(restore_until(&Site::new(), &store, deadline).await)
            } else {
                store_error_of_backup(back_up_until(&site, &store, deadline).await)
            }
        });

        let ended = Deadline::after(timeout * 4).limit(asking).await;

        let error = ended.unwrap_or_else(|_| panic!("{kind:?} goes on past its deadline"));
        assert_eq!(error.fault, Fault::OutOfTime, "{kind:?}");
        assert_eq!(server.stored(), [name(START)], "{kind:?}");
        site.assert_no_leftovers();
    }
}

/// A login page, an error, the page of a web server: each is well-formed, and none is a list. The
/// client alone takes them for an empty store.
#[tokio::test]
async fn what_is_no_list_of_objects_is_no_empty_store() {
    for body in [
        "<html><body>please log in</body></html>",
        "<Error><Code>InternalError</Code></Error>",
        "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let answering = tokio::spawn(async move {
            loop {
                let (mut connection, _) = listener.accept().await.expect("accepted");
                let mut request = [0; 4096];
                let _read = connection.read(&mut request).await.expect("sent");
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                connection.write_all(answer.as_bytes()).await.expect("answered");
            }
        });
        let store = BackupStore::s3(&settings(address, false)).expect("sound settings");
        let site = Site::new();
        let restored = restore_until(&site, &store, Deadline::after(Duration::from_secs(2)));
        let error = store_error_of_restore(restored.await);
        assert_eq!(error.fault, Fault::NotS3, "{body}: {error:?}");
        assert_eq!(files_in(site.root()), [""; 0]);
        answering.abort();
    }
}
