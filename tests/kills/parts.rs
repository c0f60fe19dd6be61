//! SIGKILL in the middle of an upload in parts, to a real S3 protocol.

use std::process::Command;

use crate::support::process::Machine;
use crate::support::s3::{S3Server, configure};
use crate::support::{assert_no_leftovers, db};

use super::{DATABASE_MEBIBYTES, steps};

#[tokio::test]
async fn i6_an_upload_in_parts_that_is_killed_shows_nothing_of_itself() {
    let server = S3Server::start().await;
    let killing = move || {
        for step in steps("upload") {
            let machine = Machine::new();
            db::create_incompressible(&machine.database(), DATABASE_MEBIBYTES);
            let stored = server.stored();
            let command = |words: &[&str]| {
                let mut command: Command = machine.simplebackup();
                configure(&mut command, &server);
                command.args(words);
                command
            };
            let killed = command(&["backup"]).env("FAIL_POINT", step).output().expect("run");
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed.status), Some(9));
            assert_eq!(server.stored(), stored, "{step}");

            let next = command(&["backup"]).output().expect("run");
            assert!(next.status.success(), "{}", String::from_utf8_lossy(&next.stderr));
            assert_eq!(server.stored().len(), stored.len() + 1, "{step}");
            assert_no_leftovers(&machine.database());
            let before = db::dump(&machine.database());
            machine.lose_database();
            let restored = command(&["restore"]).output().expect("run");
            assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
            assert!(db::dump(&machine.database()) == before, "{step}: something else came back");
        }
    };
    tokio::task::spawn_blocking(killing).await.expect("each step ends well");
}
