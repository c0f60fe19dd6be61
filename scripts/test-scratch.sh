#!/usr/bin/env bash
# The static binary in an image of its own, deploy/scratch.Dockerfile: small, without a shell, and able
# to do its work.
#
#   scripts/test-scratch.sh        needs Docker, cargo, python3; builds a release binary
#
# It backs up to an S3 server whose name it has to look up, restores from there, and refuses or trusts a
# certificate as it should.
set -euo pipefail
cd "$(dirname "$0")/.."

source scripts/docker.sh

scripts/build-musl.sh
build --build-arg RUNTIME_IMAGE="$runtime_image" -f deploy/scratch.Dockerfile -t "$run-scratch" target/static
megabytes=$(($(field "$run-scratch" '{{.Size}}') / 1000000))
say "the image has $megabytes MB"
[ "$megabytes" -lt 15 ] || fail "the image has $megabytes MB; 15 is the limit"
if docker run --rm --name "$run-shell" --entrypoint sh "$run-scratch" -c true 2>/dev/null; then fail "there is a shell"; fi
build_s3

docker network create "$run" >/dev/null
docker run -d --name "$run-s3" --network "$run" --network-alias s3 \
    -e AWS_ACCESS_KEY_ID=test-access -e AWS_SECRET_ACCESS_KEY=test-secret-key \
    "$run-s3" mini -dir=/data -bucket=mybucket -admin.ui=false -webdav=false >/dev/null
# scratch NAME OPTION... -- ARGUMENT...: a container with few rights, in the foreground.
scratch() {
    local name="$run-$1" options=()
    shift
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    docker run --name "$name" --network "$run" --read-only --cap-drop ALL --security-opt no-new-privileges \
        -e MINIO_ENDPOINT=s3:8333 -e MINIO_USE_SSL=false -e MINIO_BUCKET=mybucket \
        -e MINIO_ACCESS_KEY=test-access -e MINIO_SECRET_KEY=test-secret-key \
        "${options[@]}" "$run-scratch" "$@"
}
is_healthy() { [ "$(field "$1" '{{.State.Health.Status}}')" = healthy ]; }
is_stored() { docker run --rm --network "$run" -e MINIO_ENDPOINT=s3:8333 -e MINIO_USE_SSL=false -e MINIO_BUCKET=mybucket \
    -e MINIO_ACCESS_KEY=test-access -e MINIO_SECRET_KEY=test-secret-key "$run-scratch" list --json; }
await 60 is_stored

say "a service without an app: healthy, a backup at the stop"
python3 -c 'import sqlite3, sys
sqlite3.connect(sys.argv[1]).executescript("CREATE TABLE t (x); INSERT INTO t VALUES (1), (2), (3);")' "$work/seed.db"
# An image without a shell has its volume filled from outside.
docker create --name "$run-seed" -v "$run-first:/var/lib/app" "$run-scratch" >/dev/null
chmod 644 "$work/seed.db"
docker cp "$work/seed.db" "$run-seed:/var/lib/app/database.db"
scratch first -v "$run-first:/var/lib/app" -d -- run --simple-backup >/dev/null
await 60 is_healthy "$run-first"
timeout 90 docker stop --time 60 "$run-first" >/dev/null
equal "exit code" 0 "$(field "$run-first" '{{.State.ExitCode}}')"
contains "$run-first" '[SIMPLE-BACKUP] Uploaded to s3://mybucket/db-backup-'

say "a new container on an empty volume: restored"
scratch second -v "$run-second:/var/lib/app" -d -- run --simple-backup >/dev/null
await 60 is_healthy "$run-second"
contains "$run-second" '[SIMPLE-BACKUP] Running integrity check... ok'
docker cp "$run-second:/var/lib/app/database.db" "$work/restored.db" >/dev/null
equal "rows" 3 "$(python3 -c 'import sqlite3, sys
print(sqlite3.connect(sys.argv[1]).execute("SELECT count(*) FROM t").fetchone()[0])' "$work/restored.db")"

say "TLS: the certificate of a stranger is refused, a trusted one is not"
printf '[req]\ndistinguished_name=dn\nx509_extensions=ext\nprompt=no\n[dn]\nCN=tls\n[ext]\nsubjectAltName=DNS:tls\nbasicConstraints=critical,CA:FALSE\n' \
    >"$work/openssl.cnf"
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -config "$work/openssl.cnf" \
    -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null
chmod 644 "$work/key.pem"
docker run -d --name "$run-tls" --network "$run" --network-alias tls -v "$work:/tls:ro" \
    -e AWS_ACCESS_KEY_ID=test-access -e AWS_SECRET_ACCESS_KEY=test-secret-key \
    "$run-s3" mini -dir=/data -bucket=mybucket -admin.ui=false -webdav=false \
    -s3.port.https=8334 -s3.cert.file=/tls/cert.pem -s3.key.file=/tls/key.pem >/dev/null
tls=(-e MINIO_ENDPOINT=https://tls:8334)
answers() { docker exec "$run-tls" bash -c '</dev/tcp/127.0.0.1/8334'; }
await 60 answers
if scratch stranger "${tls[@]}" -- list >/dev/null 2>"$work/stranger.log"; then fail "a stranger's certificate was accepted"; fi
grep -i certificate "$work/stranger.log" >/dev/null || fail "refused for another reason: $(cat "$work/stranger.log")"
scratch friend "${tls[@]}" -v "$work/cert.pem:/cert.pem:ro" -e SSL_CERT_FILE=/cert.pem -- list >/dev/null ||
    fail "a trusted certificate was refused"
say "passed"
