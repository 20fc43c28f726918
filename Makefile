# Every target works from a fresh clone with Go alone. See CONTRIBUTING.md.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# Tools are pinned here and built by the Go toolchain; nothing is installed.
GOLANGCI_LINT := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
CYCLONEDX := go run github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
GO_LICENSES := go run github.com/google/go-licenses@v1.6.0

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
MODULES := $(patsubst %/go.mod,%,$(wildcard go.mod */go.mod */*/go.mod */*/*/go.mod))
MODULES := $(patsubst go.mod,.,$(MODULES))

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/outrider
	CGO_ENABLED=0 go build -trimpath -tags grpcnotrace -ldflags "-s -w -X main.version=$(VERSION)" -o bin/outrider .

# Bases from a registry of one's own: make image GO_IMAGE=… RUNTIME_IMAGE=…
ENGINE ?= $(firstword $(foreach engine,docker podman buildah,$(if $(shell command -v $(engine)),$(engine))))
IMAGE ?= outrider:$(VERSION)

.PHONY: image
image: ## Build the image (ENGINE=, IMAGE=, GO_IMAGE=, RUNTIME_IMAGE=); where the bases cannot be had, on stand-ins, to try it only
	@.ci/image "$(ENGINE)" "$(IMAGE)" "$(VERSION)" $(if $(GO_IMAGE),--build-arg GO_IMAGE=$(GO_IMAGE)) $(if $(RUNTIME_IMAGE),--build-arg RUNTIME_IMAGE=$(RUNTIME_IMAGE))

.PHONY: test
test: ## Test all modules, with -race and with every server that is there (ARGS='-run X' ./relay)
	@.ci/test $(ARGS)

.PHONY: lint
lint: ## Lint all modules, formatting included
	@for module in $(MODULES); do \
		echo "lint $$module"; \
		(cd $$module && $(GOLANGCI_LINT) run --config $(CURDIR)/.golangci.yml ./... && go mod tidy -diff) || exit 1; \
	done

.PHONY: format
format: ## Format all modules
	@for module in $(MODULES); do (cd $$module && $(GOLANGCI_LINT) fmt --config $(CURDIR)/.golangci.yml ./...) || exit 1; done

.PHONY: tidy
tidy: ## Write go.mod and go.sum of all modules, after a change of what this one needs
	@for module in $(MODULES); do (cd $$module && go mod tidy) || exit 1; done

.PHONY: generate
generate: ## Write the generated documentation
	@go run . config --output markdown > docs/.configuration.md && mv docs/.configuration.md docs/configuration.md

.PHONY: demo
demo: ## Show it: orders in Postgres, events on Kafka, crashes in between (HOLD=1 stays up)
	@cd examples && HOLD=$(HOLD) go run ./demo

.PHONY: examples
examples: ## Run all examples (KAFKA=real for Apache Kafka)
	@for example in examples/*/Makefile; do (cd $$(dirname $$example) && echo "$$(basename $$PWD)" && $(MAKE) --no-print-directory run) || exit 1; done

.PHONY: bench
bench: ## Measure against a raw reader and a bare producer on this machine
	@go run ./internal/bench

.PHONY: chaos
chaos: ## Let every fault strike, and show that nothing is lost (FOR=2h, SEED=n)
	@FOR='$(FOR)' SEED='$(SEED)' go run ./internal/chaos/cmd

.PHONY: servers
servers: ## Fetch the servers that tests use into the cache, for work without a network
	@go run ./internal/servers

.PHONY: sbom
sbom: ## Write bin/sbom.cdx.json: what is in the binary (CycloneDX), with licences and hashes
	@mkdir -p bin
	@CGO_ENABLED=0 $(CYCLONEDX) app -json -licenses -std -output bin/sbom.cdx.json .
	@echo "bin/sbom.cdx.json"

# Licences that ask for no more than to be named. Others need a decision first.
NOT_OURS := --ignore github.com/outrider-cdc/outrider
LICENCES := Apache-2.0,BSD-2-Clause,BSD-3-Clause,ISC,MIT

.PHONY: licenses
licenses: ## Write bin/licenses.csv and the texts in bin/licenses; fails for a licence that is not allowed
	@rm -rf bin/licenses && mkdir -p bin
	@# The tool warns of each file that is not Go; that is worth a look only when it fails.
	@{ $(GO_LICENSES) check . $(NOT_OURS) --allowed_licenses=$(LICENCES) && \
		$(GO_LICENSES) save . $(NOT_OURS) --save_path=bin/licenses && \
		$(GO_LICENSES) report . $(NOT_OURS) > bin/licenses.csv; } 2> bin/licenses.log || { grep -v '^W' bin/licenses.log; exit 1; }
	@echo "bin/licenses.csv, bin/licenses"
