# docker build -t lockgate .
# docker run -p 443:443 -p 80:80 -v ./lockgate:/etc/lockgate:ro -v lockgate:/var/lib/lockgate lockgate

FROM rust:1.95-bookworm AS build
WORKDIR /src
# The dependencies first: they change rarely and take most of the time.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches/certificates tests/blackbox \
 && echo 'fn main() {}' | tee src/main.rs benches/metering.rs benches/request.rs benches/world.rs \
    benches/certificates/main.rs tests/blackbox/main.rs > /dev/null \
 && touch src/lib.rs \
 && cargo build --release --locked --bin lockgate \
 && rm -r src
COPY src ./src
RUN touch src/main.rs src/lib.rs && cargo build --release --locked --bin lockgate

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /var/lib/lockgate --shell /usr/sbin/nologin lockgate \
 && install -d -o lockgate -g lockgate -m 0700 /var/lib/lockgate
COPY --from=build /src/target/release/lockgate /usr/local/bin/lockgate
USER lockgate
VOLUME /var/lib/lockgate
EXPOSE 80 443
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s CMD ["lockgate", "health"]
ENTRYPOINT ["lockgate"]
CMD ["run"]
