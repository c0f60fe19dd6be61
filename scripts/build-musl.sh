#!/usr/bin/env bash
# A binary that needs no C library on the machine that it runs on: target/static/simplebackup.
#
#   scripts/build-musl.sh          with musl where its target is installed, else with glibc
#   scripts/build-musl.sh musl     with musl, or not at all
#   scripts/build-musl.sh gnu      with glibc
#
# For musl: rustup target add x86_64-unknown-linux-musl, and musl-gcc (Debian's musl-tools) for the C
# of SQLite, ring and libdeflate; on Alpine neither, as its C library is musl. glibc needs what every C
# compiler has beside it.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc --print host-tuple)
musl="${host%%-*}-unknown-linux-musl"
has_musl() {
    [ "$host" = "$musl" ] ||
        { [ -d "$(rustc --print sysroot)/lib/rustlib/$musl/lib" ] && command -v musl-gcc >/dev/null; }
}

libc=${1:-}
if [ -z "$libc" ]; then libc=$(has_musl && echo musl || echo gnu); fi
case $libc in
    musl)
        has_musl || {
            echo "no musl: rustup target add $musl, and install musl-tools; or build with glibc" >&2
            exit 1
        }
        target=$musl
        if [ "$host" != "$musl" ]; then export "CC_${musl//-/_}=musl-gcc"; fi
        ;;
    gnu) target="${host%%-*}-unknown-linux-gnu" ;;
    *) echo "musl or gnu, not \"$libc\"" >&2; exit 2 ;;
esac

# With its target named, so that the flag is for the binary and not for what runs during the build.
RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --release --locked --target "$target" --package simplebackup --bin simplebackup
mkdir -p target/static
cp "target/$target/release/simplebackup" target/static/
# What asks for an interpreter or a library would not start in an empty image.
if readelf --program-headers --dynamic target/static/simplebackup | grep -E 'INTERP|NEEDED'; then
    echo "not static" >&2
    exit 1
fi
ls -l target/static/simplebackup
target/static/simplebackup --version
