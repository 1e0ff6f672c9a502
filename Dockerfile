FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
# The caches outlive the layer, so a change of one source file does not compile every dependency again.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin taskcast \
    && cp target/release/taskcast /taskcast

FROM debian:bookworm-slim
# A Postgres that is reached over TLS is checked against the system's certificate authorities, which should be current
# and therefore are not pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin taskcast
COPY --from=build /taskcast /usr/local/bin/taskcast
USER 10001
EXPOSE 3721
STOPSIGNAL SIGTERM
# The image has no HTTP client; bash can open the connection itself.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["bash", "-c", "exec 3<>\"/dev/tcp/127.0.0.1/${TASKCAST_PORT:-3721}\" && printf 'GET /health HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
ENTRYPOINT ["taskcast"]
CMD ["serve", "--host", "0.0.0.0"]
