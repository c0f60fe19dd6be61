//! The archive, in and out: how fast a snapshot is packed and unpacked, without store and network.
//!
//! What is packed is words and numbers by a fixed lot, about as hard to pack as an app's database.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use simplebackup_engine::archive::{Ahead, Outlet, Piece, pack, unpack};
use simplebackup_engine::blocking::Stop;
use simplebackup_engine::disk::Disk;
use simplebackup_engine::key::BackupKey;
use simplebackup_engine::manifest::Manifest;
use simplebackup_engine::progress::Progress;
use simplebackup_engine::snapshot::{JournalMode, Owner};
use tokio::sync::mpsc;

const MEBIBYTE: usize = 1024 * 1024;

/// Writes words in the order of a fixed lot, a third of them numbers.
fn text(bytes: usize) -> Vec<u8> {
    const WORDS: [&str; 12] = [
        "backup", "restore", "the", "of", "a", "database", "is", "stored", "every", "hour", "row",
        "index",
    ];
    let mut lot = 7_u64;
    let mut text = Vec::with_capacity(bytes + 32);
    while text.len() < bytes {
        lot = lot.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let word = match (lot >> 40) % 18 {
            at @ 0..12 => WORDS[at as usize].to_owned(),
            _ => format!("{:x}", lot >> 33),
        };
        text.extend_from_slice(word.as_bytes());
        text.push(b' ');
    }
    text.truncate(bytes);
    text
}

fn manifest(database_bytes: u64) -> Manifest {
    Manifest {
        database_bytes,
        journal_mode: JournalMode::Wal,
        owner: Owner { mode: 0o600, uid: 1000, gid: 1000 },
        contents: None,
        instance: None,
        uncompared_with: None,
        recipients: Vec::new(),
    }
}

/// Packs the file and returns the pieces.
fn packed(path: &Path, manifest: &Manifest) -> Vec<Bytes> {
    let (sender, mut receiver) = mpsc::channel(40);
    let taking = std::thread::spawn(move || {
        let mut pieces = Vec::new();
        while let Some(Piece::Bytes(bytes)) = receiver.blocking_recv() {
            pieces.push(bytes);
        }
        pieces
    });
    let key = BackupKey::parse("db-backup-1732446000.db.gz").expect("a valid name");
    let (stop, progress) = (Stop::default(), Progress::default());
    let from = (path, Ahead::default());
    pack(from, key, manifest, Outlet::plain(&sender), &|| 2, (&stop, &progress)).expect("packed");
    drop(sender);
    taking.join().expect("no panic")
}

/// Unpacks the pieces into the file.
fn unpacked(pieces: Vec<Bytes>, path: &Path) {
    let (sender, receiver) = mpsc::channel(4);
    let sending = std::thread::spawn(move || {
        for piece in pieces {
            sender.blocking_send(Piece::Bytes(piece)).expect("wanted");
        }
        sender.blocking_send(Piece::End).expect("wanted");
    });
    unpack(receiver, path, &Disk::of(path), &Stop::default()).expect("sound");
    sending.join().expect("no panic");
}

fn archive(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let snapshot = folder.path().join("snapshot.db");
    let target = folder.path().join("restored.db");
    let mut group = criterion.benchmark_group("archive");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    // Below and above the size from which the level changes.
    for mebibytes in [8, 80] {
        let bytes = text(mebibytes * MEBIBYTE);
        std::fs::write(&snapshot, &bytes).expect("written");
        let manifest = manifest(bytes.len() as u64);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(format!("in/{mebibytes} MiB"), |bencher| {
            bencher.iter(|| packed(&snapshot, &manifest));
        });
        let pieces = packed(&snapshot, &manifest);
        group.bench_function(format!("out/{mebibytes} MiB"), |bencher| {
            bencher.iter_batched(
                || {
                    let _absent_at_first = std::fs::remove_file(&target);
                    pieces.clone()
                },
                |pieces| unpacked(pieces, &target),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, archive);
criterion_main!(benches);
