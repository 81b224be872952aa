# syntax=docker/dockerfile:1
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
RUN cargo build --locked --profile dist --bin trunkline

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home trunkline \
    && mkdir -p /etc/trunkline /var/lib/trunkline \
    && chown trunkline /var/lib/trunkline
COPY --from=build /build/target/dist/trunkline /usr/local/bin/trunkline
# Everything else may be read-only: `docker run --read-only -v state:/var/lib/trunkline …`.
VOLUME /var/lib/trunkline
USER 10001
ENV TRUNKLINE_CONFIG=/etc/trunkline/trunkline.yaml
EXPOSE 8080 8081 8082
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["trunkline", "healthcheck"]
ENTRYPOINT ["trunkline"]
CMD ["serve"]
