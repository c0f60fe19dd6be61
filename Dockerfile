# The image holds the one binary and nothing to build it with. Put it in front of your app:
#
#   FROM your-app
#   COPY --from=simplebackup /usr/local/bin/simplebackup /usr/local/bin/
#   ENV SIMPLE_BACKUP_HTTP_ADDRESS=0.0.0.0:8080
#   ENTRYPOINT ["simplebackup"]
#   CMD ["run", "--simple-backup", "--", "./server"]
#
# The binary needs glibc 2.36 or newer and the certificates of ca-certificates; your image needs a
# user who may write to /var/lib/app. Health check and volume are as at the end of this file. A binary
# that needs neither, in an image that holds nothing else: deploy/scratch.Dockerfile.

# Both can be replaced where no registry is within reach: see scripts/build-base-images.sh.
ARG BUILD_IMAGE=rust:1.95-slim-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

FROM ${BUILD_IMAGE} AS build
WORKDIR /src

# Dependencies first, against empty sources: this layer stays until a manifest or the lock changes.
# What was made of the empty sources goes at once. COPY keeps the times of files, so Cargo would
# take it to be newer than the real sources, and this image would hold a program that does nothing.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
COPY actors/Cargo.toml actors/
COPY engine/Cargo.toml engine/
RUN mkdir src tests \
 && touch src/lib.rs actors/lib.rs engine/lib.rs tests/main.rs \
 && echo 'fn main() {}' > src/main.rs \
 && cargo build --release --locked --package simplebackup --bin simplebackup \
 && cargo clean --release --locked \
      --package simplebackup --package simplebackup-actors --package simplebackup-engine

COPY actors actors
COPY engine engine
COPY src src
COPY build.rs config.toml docker-compose.yml ./
COPY deploy deploy
# The history is not in here, so --version has to be told:
#   docker build --build-arg SIMPLEBACKUP_COMMIT="$(git log -1 --format='%h %cs')" …
ARG SIMPLEBACKUP_COMMIT
RUN cargo build --release --locked --package simplebackup --bin simplebackup

FROM ${RUNTIME_IMAGE}

# TLS to the store needs the certificates; debian:bookworm-slim comes without them.
RUN test -e /etc/ssl/certs/ca-certificates.crt \
 || { apt-get update \
   && apt-get install --yes --no-install-recommends ca-certificates \
   && rm -rf /var/lib/apt/lists/*; }

# The owner of the folder before VOLUME is the owner of every new volume: the backup and the app
# write beside the database, and neither is root.
RUN groupadd --gid 10001 app \
 && useradd --uid 10001 --gid app --no-create-home --home-dir /var/lib/app \
      --shell /usr/sbin/nologin app \
 && install --directory --owner app --group app --mode 0750 /var/lib/app
COPY --from=build /src/target/release/simplebackup /usr/local/bin/simplebackup

# By number, so that Kubernetes can see that it is not root (runAsNonRoot).
USER 10001:10001
WORKDIR /var/lib/app
VOLUME /var/lib/app

# The default, 127.0.0.1, is out of reach from outside of the container. What this opens only
# reads: POST /backup is forbidden until SIMPLE_BACKUP_HTTP_TOKEN(_FILE) is set. Change the address
# by this variable rather than by --http: the health check below has to know it too.
ENV SIMPLE_BACKUP_HTTP_ADDRESS=0.0.0.0:8080
EXPOSE 8080

# Whether it lives, not whether it is ready: a long restore must not get it killed.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
  CMD ["simplebackup", "healthcheck"]

# SIGTERM stops the app (10 s at most) and makes the final backup (30 s at most). Docker kills
# after 10 s unless told: docker stop --time 60, or stop_grace_period: 60s in a compose file.
STOPSIGNAL SIGTERM

# The exec form: a shell between Docker and the program would swallow the SIGTERM.
ENTRYPOINT ["simplebackup"]
# Without an app it restores and backs up /var/lib/app/database.db, whoever writes it.
CMD ["run", "--simple-backup"]
