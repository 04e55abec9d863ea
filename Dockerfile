# syntax=docker/dockerfile:1
# Easel in a container: one program, one volume, no root.
#
#   docker build -t easel .
#   docker run -p 8080:8080 -v easel:/data -e DATABASE_URL=postgres://… -e OPENAI_API_KEY=sk-… easel
#
# Another build or run base: --build-arg BUILD_BASE=… --build-arg RUN_BASE=…
ARG BUILD_BASE=docker.io/library/rust:1.95-slim-bookworm
ARG RUN_BASE=docker.io/library/debian:bookworm-slim

FROM ${BUILD_BASE} AS build
WORKDIR /build
# libwebp is built from C.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc g++ libc6-dev make \
    && rm -rf /var/lib/apt/lists/*
ENV SQLX_OFFLINE=true
# Dependencies first, in a layer that changes with the manifest alone: the same manifest over an empty crate.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
RUN mkdir -p .config src \
    && echo 'fn main() {}' | tee .config/build.rs src/main.rs > src/lib.rs \
    && cargo build --release --locked --bin easel \
    && cargo clean --release --package easel
COPY . .
# What tests let the process die by is in no release (src/faults.rs).
RUN cargo build --release --locked --bin easel && ! grep -q EASEL_FAULT target/release/easel

FROM ${RUN_BASE}
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Easel" \
      org.opencontainers.image.description="One OpenAI-compatible endpoint for every image model" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin easel \
    && install -d -o easel -g easel -m 0700 /data
COPY --from=build /build/target/release/easel /usr/local/bin/easel
COPY --from=build /build/LICENSE /usr/share/doc/easel/LICENSE
# Everything that Easel writes is below /data; the rest of the file system may be read-only. A variable wins over the
# operator's file, so here is only what follows from being in a container.
ENV EASEL__LISTEN=0.0.0.0:8080 \
    EASEL__DATA_DIR=/data \
    EASEL__LOG__FORMAT=json
WORKDIR /data
USER 10001:10001
VOLUME /data
EXPOSE 8080
# SIGTERM drains; give it longer than [shutdown] drain_delay, drain_timeout and 30 s together before killing.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 CMD ["easel", "health"]
ENTRYPOINT ["easel"]
CMD ["serve"]
