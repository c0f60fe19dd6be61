#!/usr/bin/env bash
# The Debian package: target/debian/simplebackup_….deb.
#
#   scripts/build-deb.sh        needs cargo-deb (cargo install cargo-deb)
#
# What goes into it stands in Cargo.toml under package.metadata.deb. Manual pages and completions are
# printed by the program itself, so they are those of this build.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release --locked --bin simplebackup
simplebackup=target/release/simplebackup
made=target/package-files
rm -rf "$made"
mkdir -p "$made"
"$simplebackup" man --output "$made/man"
gzip -9 -n "$made"/man/*.1
for shell in bash zsh fish; do "$simplebackup" completions "$shell" >"$made/completions.$shell"; done
gzip -9 -n -c CHANGELOG.md >"$made/changelog.gz"
# Debian's own form of it, which says what changed in the package.
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
maintainer=$(sed -n 's/^maintainer = "\(.*\)"$/\1/p' Cargo.toml)
cat >"$made/changelog" <<CHANGELOG
simplebackup ($version-1) unstable; urgency=medium

  * Made of this version; what changed in it says changelog.gz.

 -- $maintainer  $(git log -1 --format=%cD 2>/dev/null || date -R)
CHANGELOG
cargo deb --no-build --locked
