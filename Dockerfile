# Built for linux/amd64 and linux/arm64: docker build -t drover .
# The image has drover and python3. An app with packages of its own starts from
# it, installs them, and is named by its configuration:
#   FROM drover
#   COPY . /app
#   CMD ["run", "/app/drover.yaml"]
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /drover .

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /var/lib/drover --create-home drover
COPY --from=build /drover /usr/local/bin/drover
USER 10001
WORKDIR /var/lib/drover
STOPSIGNAL SIGTERM
ENTRYPOINT ["drover"]
CMD ["run", "drover.yaml"]
