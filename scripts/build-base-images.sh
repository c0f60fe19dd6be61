#!/usr/bin/env bash
# Makes the two base images of the Dockerfile from Debian packages and the installed Rust
# toolchain, for machines that cannot pull from an image registry:
#
#   sudo scripts/build-base-images.sh
#   docker build --network host \
#     --build-arg BUILD_IMAGE=simplebackup-build-base:local \
#     --build-arg RUNTIME_IMAGE=simplebackup-runtime-base:local -t simplebackup .
#
# It needs root, docker and debootstrap. No address of any server stands here: debootstrap's
# default mirror serves, or else the one in this machine's own apt configuration.
set -euo pipefail

suite=bookworm
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/packages"

# Prints the mirror that this machine's apt uses for the suite's main component.
mirror_of_this_machine() {
  apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' \
    "Created-By: Packages" | awk -v suite="$suite" '$2 == suite && $3 == "main" { print $1; exit }'
}

# bootstrap FOLDER PACKAGES: a minimal Debian with the packages beside it.
bootstrap() {
  local folder=$1 packages=$2
  local options=(--variant=minbase --cache-dir="$work/packages" --include="$packages")
  if ! debootstrap "${options[@]}" "$suite" "$folder" >"$work/log" 2>&1; then
    rm -rf "$folder"
    debootstrap "${options[@]}" "$suite" "$folder" "$(mirror_of_this_machine)" >"$work/log" 2>&1 || {
      tail -n 20 "$work/log" >&2
      return 1
    }
  fi
  # What Debian's own "slim" images leave out as well.
  rm -rf "$folder"/var/cache/apt/* "$folder"/var/lib/apt/lists/* "$folder"/var/log/* \
    "$folder"/usr/share/{doc,man,info,locale}/*
}

# import FOLDER TAG CHANGE...: makes an image of the folder.
import() {
  local folder=$1 tag=$2 changes=()
  for change in "${@:3}"; do changes+=(--change "$change"); done
  tar -C "$folder" --numeric-owner --exclude=./dev/* --exclude=./proc/* --exclude=./sys/* -c . |
    docker import "${changes[@]}" - "$tag" >/dev/null
  echo "made $tag"
}

bootstrap "$work/runtime" ca-certificates
import "$work/runtime" simplebackup-runtime-base:local 'CMD ["bash"]'
rm -rf "$work/runtime"

# The same packages as in rust:*-slim, so that what builds here builds there.
bootstrap "$work/build" ca-certificates,gcc,libc6-dev

# Only the build image trusts this machine's own certificate authorities: a proxy that inspects
# its traffic is no business of the image that runs.
if compgen -G '/usr/local/share/ca-certificates/*.crt' >/dev/null; then
  cp /usr/local/share/ca-certificates/*.crt "$work/build/usr/local/share/ca-certificates/"
  chroot "$work/build" update-ca-certificates >/dev/null 2>&1
fi

# Without the documentation and the library's sources, which are half of a toolchain.
mkdir "$work/build/usr/local/rust"
tar -C "$(rustc --print sysroot)" --exclude=./share --exclude=./lib/rustlib/src -c . |
  tar -C "$work/build/usr/local/rust" --no-same-owner -x
import "$work/build" simplebackup-build-base:local \
  'ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
  'ENV CARGO_HOME=/usr/local/cargo' 'CMD ["bash"]'
