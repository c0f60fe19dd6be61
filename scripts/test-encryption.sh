#!/usr/bin/env bash
# Encrypted backups and the real age: it reads what we store, and we read what it makes. Each line
# "ok: …" is a claim that was checked; the first that does not hold ends the script with 1.
#
#   scripts/test-encryption.sh        installs age and sqlite3 from Debian; skips where it cannot
set -euo pipefail
cd "$(dirname "$0")/.."

skip() { printf 'SKIPPED: nothing of scripts/test-encryption.sh was shown: %s\n' "$*" >&2; exit 0; }
ok() { printf 'ok: %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; cat "$work/commands.log" >&2; exit 1; }
equal() { [ "$2" = "$3" ] || fail "$1: expected \"$2\", found \"$3\""; }

if ! command -v age >/dev/null || ! command -v sqlite3 >/dev/null; then
    apt-get update -qq && apt-get install -y -qq age sqlite3 >/dev/null || skip "no age, no sqlite3"
fi
cargo build --locked --bins
simplebackup="$PWD/target/debug/simplebackup"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/store" "$work/app"
touch "$work/commands.log"
cd "$work"

database="$work/app/app.db"
export SIMPLE_BACKUP_DATABASE_PATH="$database" SIMPLE_BACKUP_STORE_URL="file://$work/store"
sqlite3 "$database" >/dev/null <<'SQL'
PRAGMA journal_mode = WAL;
CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT, body BLOB);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
    INSERT INTO notes SELECT i, 'note ' || i, randomblob(200) FROM n;
SQL
rows() { sqlite3 "$1" .dump | sha256sum; }
expected=$(rows "$database")

# try WORDS…: runs a command, and keeps what it says and its exit code.
try() { code=0; said=$("$simplebackup" "$@" 2>&1) || code=$?; printf '%s\n' "$said" >>"$work/commands.log"; }
run() { try "$@"; equal "the exit code of $*" 0 "$code"; }
newest() { ls "$work"/store/db-backup-* | sort | tail -1; }

# --- keys as age-keygen makes them -----------------------------------------------------------
age-keygen -o key.txt 2>keygen.log
age-keygen -o second.txt 2>>keygen.log
age-keygen -o other.txt 2>>keygen.log
recipient=$(age-keygen -y key.txt) second=$(age-keygen -y second.txt)
export SIMPLE_BACKUP_ENCRYPTION_RECIPIENTS="$recipient $second"

# --- out of our hands ------------------------------------------------------------------------
run backup
equal "what is stored" 1 "$(ls store | wc -l)"
[[ "$(newest)" == *.db.gz.age ]] || fail "no encrypted backup: $(ls store)"
equal "its first line" "age-encryption.org/v1" "$(head -n 1 "$(newest)" 2>/dev/null)"
! grep -qa "note 1\|CREATE TABLE\|db-backup-" "$(newest)" || fail "plain text in it"
for key in key.txt second.txt; do
    age -d -i "$key" "$(newest)" | gunzip >"$key.db"
    equal "integrity" ok "$(sqlite3 "$key.db" 'PRAGMA integrity_check')"
    equal "rows" "$expected" "$(rows "$key.db")"
done
! age -d -i other.txt "$(newest)" >/dev/null 2>&1 || fail "a stranger reads it"
ok "age -d | gunzip reads an encrypted backup, with either key and no other"

# --- back into our hands ---------------------------------------------------------------------
try restore --to none.db
equal "a restore without an identity" 1 "$code"
[[ "$said" == *"is encrypted, and there is no identity"* ]] || fail "it does not say why: $said"
try restore --to none.db --identity other.txt
equal "a restore with another's identity" 1 "$code"
[ ! -e none.db ] || fail "something was restored"
run verify --identity second.txt
run restore --to back.db --identity key.txt
equal "rows that came back" "$expected" "$(rows back.db)"
gzip -c key.txt.db | age -r "$recipient" >"store/db-backup-4000000000.db.gz.age"
run restore --to stock.db --identity key.txt
equal "rows of what gzip and age made" "$expected" "$(rows stock.db)"
rm "store/db-backup-4000000000.db.gz.age"
ok "restore and verify want the identity, and read what gzip and age made by themselves"

# --- damage ----------------------------------------------------------------------------------
sound=$(newest)
bytes=$(stat -c %s "$sound")
cp "$sound" sound.age
refused() {
    ! age -d -i key.txt "$sound" 2>/dev/null | cat >/dev/null || fail "age takes $1"
    try verify --identity key.txt
    equal "verify of $1" 1 "$code"
    [[ "$said" == *DAMAGED* ]] || fail "verify of $1 says: $said"
    try restore --to none.db --identity key.txt
    equal "restore of $1" 1 "$code"
    [ ! -e none.db ] || fail "$1 was restored"
    cp sound.age "$sound"
}
truncate -s "$((bytes - 1))" "$sound"; refused "one byte less"
truncate -s "$((bytes / 2))" "$sound"; refused "half of it"
printf x >>"$sound"; refused "one byte more"
cat sound.age >>"$sound"; refused "it twice"
printf '\xff\xfe' | dd of="$sound" bs=1 seek="$((bytes / 2))" conv=notrunc status=none; refused "other bytes in the middle"
run verify --identity key.txt
ok "what was cut, changed or added to is refused, by age too"

# --- no use ----------------------------------------------------------------------------------
before=$(ls store)
for recipients in "" "age1wrong" "[\"$recipient\", \"\"]" "$(grep AGE-SECRET-KEY key.txt)"; do
    SIMPLE_BACKUP_ENCRYPTION_RECIPIENTS="$recipients" try backup
    equal "the exit code with \"${recipients:0:9}…\"" 2 "$code"
    [[ "$said" != *"$(grep AGE-SECRET-KEY key.txt | cut -c 20-50)"* ]] || fail "a secret was printed"
done
equal "what is stored" "$before" "$(ls store)"
ok "recipients that are no use refuse the start, and nothing is stored in plain"
