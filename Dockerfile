# Pointsman as an image: docker build -t pointsman .
FROM rust:1-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends protobuf-compiler libprotobuf-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY Cargo.toml Cargo.lock ./
COPY src ./src
RUN cargo build --release --locked --bin pointsman

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    # A volume that is mounted here takes over the owner, so that `traefik-config --dir /traefik` may write.
    && install -d -o 65532 -g 65532 -m 0755 /traefik
COPY --from=build /source/target/release/pointsman /usr/local/bin/pointsman
USER 65532:65532
# The API for JupyterHub, and the pages for Traefik.
EXPOSE 8001 8002
ENTRYPOINT ["pointsman"]
