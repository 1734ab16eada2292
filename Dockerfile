# Pointsman as an image of one file: docker build -t pointsman .
#
# It is compiled here, or outside: a static program `target/image/pointsman` is taken as it is, and then any
# BUILD_IMAGE with a shell and certificates of authorities will do. `scripts/image` does both.
ARG BUILD_IMAGE=rust:1-bookworm
FROM $BUILD_IMAGE AS build
WORKDIR /source
COPY Cargo.toml Cargo.lock target/image* ./
COPY src ./src
# A static program needs no system around it. With `--target` the flag holds for the program alone, and not for the
# parts that the compiler itself loads while it builds.
RUN if [ ! -e pointsman ]; then \
        { command -v protoc >/dev/null || { apt-get update \
            && apt-get install -y --no-install-recommends protobuf-compiler libprotobuf-dev; }; } \
        && target="$(rustc -vV | sed -n 's/^host: //p')" \
        && RUSTFLAGS="-C target-feature=+crt-static" \
           cargo build --locked --release --bin pointsman --target "$target" \
        && cp "target/$target/release/pointsman" .; \
    fi
# Any user may write to the two folders, as OpenShift's; a volume that is mounted over one takes over its rights.
RUN mkdir -p /image/usr/local/bin /image/etc/ssl/certs /image/traefik /image/data \
    && cp pointsman /image/usr/local/bin/ \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && chmod 0777 /image/traefik /image/data \
    # What is compiled in, for whoever looks for known faults; it is made outside, by `scripts/image`.
    && if [ -e pointsman.cdx.json ]; then \
        mkdir -p /image/usr/share/sbom && cp pointsman.cdx.json /image/usr/share/sbom/; \
    fi

FROM scratch
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Pointsman" \
      org.opencontainers.image.description="A highly available proxy for JupyterHub: the control plane for Traefik" \
      org.opencontainers.image.licenses="BSD-3-Clause" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /image /
# The folders above, and volumes of Kubernetes, belong to root and let all users write; a container has no other users.
ENV POINTSMAN_SHARED_FOLDERS=true
WORKDIR /data
USER 65532:65532
# The API for JupyterHub, the pages for Traefik, and metrics.
EXPOSE 8001 8002 8003
ENTRYPOINT ["/usr/local/bin/pointsman"]
