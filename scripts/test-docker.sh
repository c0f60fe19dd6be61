#!/usr/bin/env bash
# The image, from end to end, in containers against a real S3 server.
#
#   scripts/test-docker.sh                    needs Docker, cargo, python3 and curl
#   DATABASE_MB=64 scripts/test-docker.sh     a smaller database for the part with little memory
#
# The notes app runs in the image: it is filled, stopped with docker stop, and a new container on
# an empty volume has to have every row. Then: a rolling deploy, exit codes, orphans, a network that is
# cut during an upload, and a container with 64 MB of memory that backs up and restores a database of
# 1 GB. scripts/test-compose.sh runs the compose file, scripts/docker.sh says what the images come from.
set -euo pipefail
cd "$(dirname "$0")/.."

database_mb=${DATABASE_MB:-1024}
memory=${MEMORY:-64m}

source scripts/docker.sh

# --- the image -------------------------------------------------------------------------------
build_images
equal "the image's user" 10001:10001 "$(field "$run-image" '{{.Config.User}}')"
equal "the image's entry point" '["simplebackup"]' "$(field "$run-image" '{{json .Config.Entrypoint}}')"
equal "the image's stop signal" SIGTERM "$(field "$run-image" '{{.Config.StopSignal}}')"
say "the image has $(($(field "$run-image" '{{.Size}}') / 1000000)) MB"

# --- network and S3 server -------------------------------------------------------------------
docker network create "$run" >/dev/null
docker run -d --name "$run-s3" --network "$run" --network-alias s3 \
    -e AWS_ACCESS_KEY_ID=test-access -e AWS_SECRET_ACCESS_KEY=test-secret-key \
    "$run-s3" mini -dir=/data -bucket=mybucket -admin.ui=false -webdav=false >/dev/null

# start NAME VOLUME OPTION... -- ARGUMENT...: a container in the background.
start() {
    local name="$run-$1" volume="$run-$2" options=()
    shift 2
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    docker run -d --name "$name" --network "$run" -v "$volume:/var/lib/app" \
        -e MINIO_ENDPOINT=s3:8333 -e MINIO_USE_SSL=false -e MINIO_BUCKET=mybucket \
        -e MINIO_ACCESS_KEY=test-access -e MINIO_SECRET_KEY=test-secret-key \
        "${options[@]}" "$run-notes" "$@" >/dev/null
}
# stop NAME CODE: with the patience that the documents ask for; the exit code has to be CODE.
stop() {
    timeout 90 docker stop --time 60 "$run-$1" >/dev/null
    equal "exit code of $1" "$2" "$(field "$run-$1" '{{.State.ExitCode}}')"
}
# ends NAME CODE: the same for a container that ends by itself.
ends() {
    equal "exit code of $1" "$2" "$(timeout 60 docker wait "$run-$1" || echo none)"
}
is_healthy() { [ "$(field "$1" '{{.State.Health.Status}}')" = healthy ]; }
port() { docker port "$1" "$2" | head -n 1; }
stored() { docker run --rm --network "$run" --entrypoint simplebackup -e MINIO_ENDPOINT=s3:8333 \
    -e MINIO_USE_SSL=false -e MINIO_BUCKET=mybucket -e "MINIO_PREFIX=$1" \
    -e MINIO_ACCESS_KEY=test-access -e MINIO_SECRET_KEY=test-secret-key "$run-notes" list --json; }
# The folder of the database as it lies in the volume, log files and all.
take_out() {
    mkdir "$2"
    docker run --rm --network none -v "$run-$1:/var/lib/app" --entrypoint tar "$run-notes" \
        -C /var/lib/app -c . | tar -C "$2" -x --no-same-owner
}
no_zombies() {
    local found
    found=$(docker exec "$run-$1" sh -c 'grep -l "^State:.Z" /proc/[0-9]*/status || true' 2>/dev/null)
    [ -z "$found" ] || fail "zombies in $1: $found"
}
await 60 stored ready

# --- docker stop, empty volume, every row ----------------------------------------------------
notes=(run --simple-backup -- notes --database /var/lib/app/database.db --listen 0.0.0.0:3000)
notes_options=(-e MINIO_PREFIX=notes -p 127.0.0.1::3000 -p 127.0.0.1::8080
    # Only the volume is written to, and no right is needed.
    --read-only --cap-drop ALL --security-opt no-new-privileges)

say "first start: nothing stored, the app starts fresh"
start first first "${notes_options[@]}" -- "${notes[@]}"
await 30 curl -fs "http://$(port "$run-first" 3000)/notes"
await 60 is_healthy "$run-first"
equal "PID 1" "simplebackup run --simple-backup" \
    "$(docker exec "$run-first" sh -c 'tr "\0" " " </proc/1/cmdline' | cut -d ' ' -f 1-3)"
equal "user" 10001 "$(docker exec "$run-first" id -u)"
address=$(port "$run-first" 3000)
for number in $(seq 500); do
    curl -fs -o /dev/null -d "note $number" "http://$address/notes" || fail "note $number refused"
done

say "docker stop: final backup, exit code 0"
began=$(date +%s%N)
stop first 0
say "stopped after $((($(date +%s%N) - began) / 1000000)) ms"
contains "$run-first" '[SIMPLE-BACKUP] Starting shutdown backup'
contains "$run-first" '[SIMPLE-BACKUP] Uploaded to s3://mybucket/notes/db-backup-'
equal "stored backups" 1 "$(stored notes | grep -c '"name"')"

say "a new container on an empty volume: every row is back"
start second second "${notes_options[@]}" -- "${notes[@]}"
await 30 curl -fs "http://$(port "$run-second" 3000)/notes"
await 60 is_healthy "$run-second"
contains "$run-second" '[SIMPLE-BACKUP] Running integrity check... ok'
status=$(curl -fs "http://$(port "$run-second" 8080)/health/backup-status")
[[ "$status" == *'"restored_on_startup":true'* ]] || fail "status does not say restored: $status"
no_zombies second
stop second 0
take_out second "$work/second"
python3 - "$work/second/database.db" <<'EOF' || fail "rows are missing or differ"
import sqlite3, sys
rows = sqlite3.connect(sys.argv[1]).execute("SELECT id, text FROM notes ORDER BY id").fetchall()
sys.exit(rows != [(number, f"note {number}") for number in range(1, 501)])
EOF

# --- a rolling deploy ------------------------------------------------------------------------
say "two containers in a rolling deploy: the new one waits for the final backup of the old one"
deploy=("${notes_options[@]}" -e MINIO_PREFIX=lease -e SIMPLE_BACKUP_LEASE_ENABLED=true)
note() { curl -fs -o /dev/null -d "$2" "http://$1/notes" || fail "$2 refused"; }
notes_in() { curl -fs "http://$1/notes" | python3 -c 'import json, sys; print(json.load(sys.stdin)["count"])'; }
start old old "${deploy[@]}" -- "${notes[@]}"
await 30 curl -fs "http://$(port "$run-old" 3000)/notes"
note "$(port "$run-old" 3000)" "written before the deploy"
start new new "${deploy[@]}" -- "${notes[@]}"
await 30 contains_now "$run-new" 'waiting up to 60 s for its final backup'
docker exec "$run-new" simplebackup healthcheck >/dev/null || fail "the new container does not live while it waits"
if docker exec "$run-new" simplebackup healthcheck --ready >/dev/null 2>&1; then fail "the new container is ready too early"; fi
note "$(port "$run-old" 3000)" "the last word"
stop old 0
await 60 curl -fs "http://$(port "$run-new" 3000)/notes"
equal "notes after the deploy" 2 "$(notes_in "$(port "$run-new" 3000)")"
contains "$run-new" '[SIMPLE-BACKUP] Running integrity check... ok'
stop new 0
equal "backups in the line" 2 "$(stored lease | grep -c '"name"')"

# --- exit codes ------------------------------------------------------------------------------
say "exit codes"
# With its own prefix, and a database to back up: exit code 7 comes after the final backup.
database='tail -c +1 /seed.db >/var/lib/app/database.db'
sqlite() { python3 -c 'import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.argv[2])' "$@"; }
sqlite "$work/seed.db" 'CREATE TABLE t (x); INSERT INTO t VALUES (1), (2), (3);'
chmod 644 "$work/seed.db"
seed=(-v "$work/seed.db:/seed.db:ro")
start app-exits exits "${seed[@]}" -e MINIO_PREFIX=exits -- run --simple-backup -- sh -c "$database; exit 7"
ends app-exits 7
equal "backups after the app ended" 1 "$(stored exits | grep -c '"name"')"
start app-killed killed -e MINIO_PREFIX=killed -- run --simple-backup -- sleep 600
await 30 docker exec "$run-app-killed" simplebackup healthcheck --ready
stop app-killed 143
start app-deaf deaf "${seed[@]}" -e MINIO_PREFIX=deaf -e SIMPLE_BACKUP_SHUTDOWN_APP_TIMEOUT=2s \
    -- run --simple-backup -- sh -c "$database; trap '' TERM; while :; do sleep 0.1; done"
await 30 docker exec "$run-app-deaf" test -s /var/lib/app/database.db
stop app-deaf 137
equal "backups after the app was killed" 1 "$(stored deaf | grep -c '"name"')"
start no-final strict -e MINIO_PREFIX=strict -e SIMPLE_BACKUP_SHUTDOWN_STRICT=true \
    -- run --simple-backup -- sh -c 'exit 0'
ends no-final 75
start no-store no-store -e MINIO_ENDPOINT=127.0.0.1:9 -e SIMPLE_BACKUP_RESTORE_TIMEOUT=2s -- run --simple-backup -- sleep 600
ends no-store 1
contains "$run-no-store" '[SIMPLE-BACKUP] FATAL: Cannot connect to S3 storage at s3://mybucket'
start wrong wrong -e SIMPLE_BACKUP_BACKUP_KEEP=none -- run --simple-backup
ends wrong 2
start no-right no-right -- run --simple-backup -- /etc/passwd
ends no-right 126
start not-there not-there -- run --simple-backup -- ./server
ends not-there 127

say "a command that hangs hears docker stop"
docker pause "$run-s3" >/dev/null
start hangs hangs -- list
sleep 1
stop hangs 1
docker unpause "$run-s3" >/dev/null

# --- orphans ---------------------------------------------------------------------------------
say "orphans are buried, the app's and those of docker exec"
start orphans orphans -e MINIO_PREFIX=orphans -- run --simple-backup -- \
    sh -c 'for n in $(seq 20); do (sleep 0.3 &); done; (setsid sleep 0.3 &); exec sleep 600'
start no-app no-app -e MINIO_PREFIX=no-app -- run --simple-backup
for name in orphans no-app; do
    await 30 docker exec "$run-$name" simplebackup healthcheck --ready
    docker exec "$run-$name" sh -c '(sleep 0.3 &); (setsid sleep 0.3 &)'
done
sleep 2
for name in orphans no-app; do no_zombies "$name"; done
stop orphans 143
stop no-app 0

# --- a large database ------------------------------------------------------------------------
say "making a database of $database_mb MB"
# Half of it compresses, as real rows do; an index, because the check has to read that too.
python3 - "$work/big.db" "$database_mb" <<'EOF'
import os, sqlite3, sys
path, target = sys.argv[1], int(sys.argv[2]) * 1_000_000
database = sqlite3.connect(path)
database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
    "CREATE TABLE rows (id INTEGER PRIMARY KEY, name TEXT, body BLOB); CREATE INDEX by_name ON rows (name);")
while os.path.getsize(path) < target:
    database.executemany("INSERT INTO rows (name, body) VALUES (?, ?)",
        [(os.urandom(8).hex(), os.urandom(1000) + bytes(1000)) for _ in range(2000)])
    database.commit()
EOF
rows_hash() {
    python3 - "$1" <<'EOF'
import hashlib, sqlite3, sys
digest, count = hashlib.sha256(), 0
for row in sqlite3.connect(sys.argv[1]).execute("SELECT id, name, body FROM rows ORDER BY id"):
    digest.update(repr(row).encode())
    count += 1
print(count, digest.hexdigest())
EOF
}
docker run --rm -i --network none -v "$run-big:/var/lib/app" --entrypoint sh "$run-notes" \
    -c 'cat >/var/lib/app/database.db' <"$work/big.db"
expected=$(rows_hash "$work/big.db")
rm "$work/big.db"

# --- the network is cut ----------------------------------------------------------------------
say "the network is cut for 3 s in the middle of an upload: the backup is made all the same"
in_store() { docker exec "$run-s3" du -s --block-size=1 /data | cut -f 1; }
has_grown() { [ "$(in_store)" -ge "$1" ]; }
# A twentieth of the database, so that most of the archive is still to come.
grown=$(($(in_store) + database_mb * 50000))
start cut big -e MINIO_PREFIX=cut -- backup
await 120 has_grown "$grown"
docker network disconnect "$run" "$run-cut"
equal "backups while the network is cut" 0 "$(stored cut | grep -c '"name"' || true)"
sleep 3
docker network connect "$run" "$run-cut"
equal "exit code of the backup" 0 "$(timeout 600 docker wait "$run-cut" || echo none)"
equal "backups after the cut" 1 "$(stored cut | grep -c '"name"')"
start verify verify -e MINIO_PREFIX=cut -- verify --all
equal "exit code of verify" 0 "$(timeout 300 docker wait "$run-verify" || echo none)"

# --- little memory ---------------------------------------------------------------------------
say "$memory of memory, a database of $database_mb MB"
small=(-e MINIO_PREFIX=big --memory "$memory" --memory-swap "$memory" --read-only
    -e SIMPLE_BACKUP_SHUTDOWN_BACKUP_TIMEOUT=15m -e SIMPLE_BACKUP_RESTORE_TIMEOUT=15m)
# The program's own peak, as the kernel counts it; the file cache takes what it is given.
peak_mb() { awk '/^VmHWM/ { printf "%.1f", $2 / 1024 }' "/proc/$1/status" 2>/dev/null; }
not_killed() { equal "killed for memory: $1" false "$(field "$run-$1" '{{.State.OOMKilled}}')"; }

start big-backup big "${small[@]}" -- run --simple-backup
await 30 docker exec "$run-big-backup" simplebackup healthcheck --ready
pid=$(field "$run-big-backup" '{{.State.Pid}}')
began=$SECONDS
timeout 960 docker stop --time 900 "$run-big-backup" >/dev/null &
stopping=$!
while now=$(peak_mb "$pid") && [ -n "$now" ]; do peak=$now; sleep 0.2; done
wait "$stopping"
not_killed big-backup
equal "exit code of the backup with little memory" 0 "$(field "$run-big-backup" '{{.State.ExitCode}}')"
contains "$run-big-backup" '[SIMPLE-BACKUP] Uploaded to s3://mybucket/big/db-backup-'
say "backed up in $((SECONDS - began)) s, peak ${peak:-unknown} MB resident"
docker volume rm -f "$run-big" >/dev/null 2>&1 || true

began=$SECONDS
start big-restore big-restored "${small[@]}" -- run --simple-backup
# Ready once the restore is over, or gone if it failed.
settled() { docker exec "$run-big-restore" simplebackup healthcheck --ready || ! is_running; }
is_running() { [ "$(field "$run-big-restore" '{{.State.Running}}')" = true ]; }
await 960 settled
not_killed big-restore
is_running || fail "the restore with little memory failed"
peak=$(peak_mb "$(field "$run-big-restore" '{{.State.Pid}}')")
say "restored in $((SECONDS - began)) s, peak ${peak:-unknown} MB resident"
docker exec "$run-big-restore" cat /var/lib/app/database.db >"$work/restored.db"
equal "rows and their hash" "$expected" "$(rows_hash "$work/restored.db")"
say "passed: ${expected% *} rows equal"
