//! What a drill says of a sound database that its header or the object's metadata contradict.

use simplebackup_engine::restore::DrillError;

use super::drill;
use crate::support::{START, Site, gunzip, gzip, name};

#[tokio::test]
async fn a_sound_database_that_is_not_what_the_header_says_is_damage() {
    let site = Site::with_database();
    site.back_up().await.expect("made");
    let archive = site.get(&name(START)).await.to_vec();
    let (truth, lie) = (b"\"rows\":206", b"\"rows\":207");
    let at = archive.windows(truth.len()).position(|bytes| bytes == truth).expect("in the header");
    let lying = [&archive[..at], lie, &archive[at + lie.len()..]].concat();
    site.put(&name(START + 1), lying).await;

    let error = drill(&site).await.expect_err("it lies");
    assert!(matches!(error, DrillError::Damaged { .. }), "{error:?}");
    let chain = simplebackup_engine::text::chain(&error);
    assert!(
        chain.ends_with(": it holds 3 tables, 206 rows instead of 3 tables, 207 rows"),
        "{chain}"
    );
    site.assert_no_leftovers();
}

#[tokio::test]
async fn lost_metadata_is_a_warning_and_an_archive_without_a_header_has_none_to_lose() {
    let site = Site::with_database();
    site.back_up().await.expect("made");
    assert_eq!(drill(&site).await.expect("sound").metadata_warning, None);

    // As a copy between stores may do it.
    let archive = site.get(&name(START)).await;
    site.put(&name(START + 1), archive.clone()).await;
    let drilled = drill(&site).await.expect("sound all the same");
    assert_eq!(drilled.key.to_string(), name(START + 1));
    let warning = drilled.metadata_warning.expect("something is lost");
    assert!(warning.starts_with("lacks database-bytes, instance, journal-mode, rows"), "{warning}");

    site.put(&name(START + 2), gzip(&gunzip(&archive))).await;
    let drilled = drill(&site).await.expect("stock tools made it");
    assert_eq!((drilled.metadata_warning, drilled.counted.rows), (None, 206));
}
