# drover's images, for linux/amd64 and linux/arm64; docs/operations.md describes how to run them.
#
#   docker build -t drover .                               only the program: HTTP apps and Go functions
#   docker build -t drover-python --target drover-python . with Python and tini, for Python functions and commands
#
# Both run as user 10001 with a read-only root: drover writes only to data_dir, /var/lib/drover.
FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates tzdata \
 && rm -rf /var/lib/apt/lists/* \
 && mkdir -p /data
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS=linux
ARG TARGETARCH
ARG VERSION=
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags="-s -w -X github.com/drover-run/drover/daemon/internal/buildinfo.version=$VERSION" -o /drover .

# Build an app with its own packages from this image:
#   FROM drover-python
#   COPY requirements.txt /app/
#   RUN pip install --no-cache-dir -r /app/requirements.txt
#   COPY . /app
#   COPY drover.yaml /etc/drover/drover.yaml
FROM python:3.13-slim-bookworm AS drover-python
# tini is process 1 and reaps what functions leave behind.
RUN apt-get update \
 && apt-get install -y --no-install-recommends tini \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /drover /usr/local/bin/drover
COPY --from=build --chown=10001:10001 /data /var/lib/drover
USER 10001:10001
WORKDIR /var/lib/drover
VOLUME /var/lib/drover
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["/usr/local/bin/drover", "health", "--data-dir", "/var/lib/drover"]
ENTRYPOINT ["/usr/bin/tini", "--", "/usr/local/bin/drover"]
CMD ["run", "/etc/drover/drover.yaml"]

FROM scratch AS drover
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /usr/share/zoneinfo /usr/share/zoneinfo
COPY --from=build /drover /usr/local/bin/drover
COPY --from=build --chown=10001:10001 /data /var/lib/drover
USER 10001:10001
WORKDIR /var/lib/drover
VOLUME /var/lib/drover
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["/usr/local/bin/drover", "health", "--data-dir", "/var/lib/drover"]
ENTRYPOINT ["/usr/local/bin/drover"]
CMD ["run", "/etc/drover/drover.yaml"]
