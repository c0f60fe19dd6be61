#!/usr/bin/env bash
# The Compose file for real, as somebody gets it: "simplebackup init compose", an app, docker compose.
#
#   scripts/test-compose.sh        needs Docker, docker compose, cargo, python3 and curl
#
# The stack comes up with its S3 server, the notes app writes rows, the stack goes down, the app's
# volume is removed, and after the next up every row has to be back. scripts/docker.sh says what the
# images come from; all that is started is gone at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

source scripts/docker.sh

if docker compose version >/dev/null 2>&1; then compose=(docker compose)
elif command -v docker-compose >/dev/null; then compose=(docker-compose)
else skip "there is no docker compose"; fi
build_images

# --- a project of its own --------------------------------------------------------------------
target/debug/simplebackup init compose --output "$work/project"
cd "$work/project"
# A setting that shows that the file is read; a port that is free.
sed -i 's/^keep = 3$/keep = 2/' config.toml
sed -i 's|127.0.0.1:8080:8080|127.0.0.1::8080|' docker-compose.yml
# What differs from the file as it stands: the images, because none can be pulled here, with a health
# check that needs no wget; and the app, as the first comment of the file has it.
cat >docker-compose.override.yml <<OVERRIDE
services:
  app:
    image: $run-notes
    command: ["run", "--simple-backup", "--", "notes", "--database", "/var/lib/app/database.db", "--listen", "0.0.0.0:3000"]
    ports:
      - "127.0.0.1::3000"
  s3:
    image: $run-s3
    healthcheck:
      test: ["CMD", "bash", "-c", "</dev/tcp/127.0.0.1/8333"]
OVERRIDE
compose+=(-p "$run-compose")
run_compose() { timeout 150 "${compose[@]}" "$@" >"$work/compose.log" 2>&1 || { cat "$work/compose.log" >&2; fail "${compose[*]} $*"; }; }
is_healthy() { [ "$(field "$1" '{{.State.Health.Status}}')" = healthy ]; }
up() {
    run_compose up -d --no-build
    app=$("${compose[@]}" ps -q app 2>/dev/null)
    await 60 is_healthy "$app"
    address=$(docker port "$app" 3000 | head -n 1)
    await 30 curl -fs "http://$address/notes"
}
# Compose's own patience, which is the file's stop_grace_period.
stop() {
    run_compose stop app
    equal "exit code under compose" 0 "$(field "$app" '{{.State.ExitCode}}')"
    contains "$app" '[SIMPLE-BACKUP] Starting shutdown backup'
    contains "$app" '[SIMPLE-BACKUP] Uploaded to s3://mybucket/backups/db-backup-'
}
notes() { curl -fs "http://$address/notes" | python3 -c 'import json, sys; print(json.load(sys.stdin)["count"])'; }

# --- up, rows, down, the volume removed, up --------------------------------------------------
say "up: nothing stored, the app starts fresh"
up
for number in $(seq 200); do
    curl -fs -o /dev/null -d "note $number" "http://$address/notes" || fail "note $number refused"
done
equal "notes" 200 "$(notes)"

say "few rights: no root, no capability, no new privileges, system calls filtered, nothing to write to"
status() { docker exec "$app" sed -n "s/^$1:[[:space:]]*//p" /proc/1/status; }
equal "user" 10001 "$(docker exec "$app" id -u)"
equal "capabilities" 0000000000000000 "$(status CapBnd)"
equal "no new privileges" 1 "$(status NoNewPrivs)"
equal "seccomp" 2 "$(status Seccomp)"
if docker exec -u 0 "$app" touch /usr/local/bin/new 2>/dev/null; then fail "the root file system is writable"; fi

say "down, and the volume of the app is removed"
stop
run_compose down
docker volume rm "$run-compose_app" >/dev/null

say "up: every row is back"
up
equal "notes after the restore" 200 "$(notes)"
contains "$app" '[SIMPLE-BACKUP] Running integrity check... ok'
status=$(curl -fs "http://$(docker port "$app" 8080 | head -n 1)/health/backup-status")
[[ "$status" == *'"restored_on_startup":true'* ]] || fail "status does not say restored: $status"

say "config.toml is read: two backups stay, not three"
for _ in 1 2 3; do docker exec "$app" simplebackup backup >/dev/null; done
equal "backups" 2 "$(docker exec "$app" simplebackup list --json | grep -c '"name"')"
stop
run_compose down -v
equal "what is left" "" "$(docker ps -aq --filter "name=^$run-compose"; docker volume ls -q --filter "name=^$run-compose")"
say "passed"
