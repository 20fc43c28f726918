# The bases are arguments, for registries of one's own and for builds without any.
ARG GO_IMAGE=golang:1.26-bookworm
ARG RUNTIME_IMAGE=scratch

FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
COPY outbox/go.mod outbox/
RUN go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=
ARG REVISION=
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -tags grpcnotrace -buildvcs=false \
    -ldflags "-s -w -X main.version=$VERSION -X main.revision=$REVISION" -o /outrider .

# Two files: nothing else is needed, and nothing else has to be kept patched.
FROM ${RUNTIME_IMAGE}
ARG VERSION=
ARG REVISION=
ARG CREATED=
LABEL org.opencontainers.image.title="outrider" \
      org.opencontainers.image.description="Streams a transactional outbox from Postgres to Kafka" \
      org.opencontainers.image.source="https://github.com/outrider-cdc/outrider" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /outrider /usr/local/bin/outrider
# A number, since runAsNonRoot of Kubernetes cannot look up a name.
USER 65532:65532
EXPOSE 8464
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["/usr/local/bin/outrider", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/outrider"]
CMD ["run"]
