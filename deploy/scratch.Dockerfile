# The smallest image: one static binary, the certificates, a user, and nothing that could be run
# besides. For a sidecar (deploy/kubernetes/sidecar.yaml), and to copy the binary from into any image,
# whatever its C library:
#
#   scripts/build-musl.sh
#   docker build -f deploy/scratch.Dockerfile -t simplebackup:scratch target/static
#
# Without a registry: --build-arg RUNTIME_IMAGE=simplebackup-runtime-base:local, which
# scripts/build-base-images.sh makes.
ARG RUNTIME_IMAGE=debian:bookworm-slim

FROM ${RUNTIME_IMAGE} AS files
# Read at run time; SSL_CERT_FILE names others. From an image rather than from the machine that
# builds, which may trust more than it should hand on.
RUN test -e /etc/ssl/certs/ca-certificates.crt \
 || { apt-get update && apt-get install --yes --no-install-recommends ca-certificates; }
RUN mkdir -p /image/usr/local/bin /image/etc/ssl/certs /image/var/lib/app \
 && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
 && echo 'app:x:10001:10001::/var/lib/app:/nonexistent' > /image/etc/passwd \
 && echo 'app:x:10001:' > /image/etc/group \
 && chown 10001:10001 /image/var/lib/app \
 && chmod 0750 /image/var/lib/app
COPY simplebackup /image/usr/local/bin/

FROM scratch
COPY --from=files /image /

# From here on as in the Dockerfile, which says why.
USER 10001:10001
WORKDIR /var/lib/app
VOLUME /var/lib/app
ENV SIMPLE_BACKUP_HTTP_ADDRESS=0.0.0.0:8080
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
  CMD ["simplebackup", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["simplebackup"]
CMD ["run", "--simple-backup"]
