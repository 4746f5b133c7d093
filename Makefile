# Sidecast: `make` lists what there is to do.

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS   = -s -w -X main.version=$(VERSION)
TOOLS     = $(CURDIR)/bin/tools
TARGETS   = linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64

export CGO_ENABLED ?= 0

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/sidecast
	@test -e bin/sidecast || echo 'The first build fetches and compiles every library: a few minutes. Later ones take seconds.'
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/sidecast ./cmd/runtime

.PHONY: all-components
all-components: ## build bin/sidecast-all, with every component of components-contrib
	@test -e bin/sidecast-all || echo 'The first build compiles some 1800 packages more: about five minutes on two cores, and 3 GB of cache.'
	go build -trimpath -tags all_components -ldflags '$(LDFLAGS)' -o bin/sidecast-all ./cmd/runtime

.PHONY: run
run: build ## run the example: three apps, their sidecars, a file of orders
	bin/sidecast run -f examples/orders/sidecast.yaml

.PHONY: test
test: build ## all tests, end-to-end ones included; those of backends whose servers are not installed are skipped
	go test ./...
	SIDECAST_BINARY=$(CURDIR)/bin/sidecast go test -C tests/compat/gosdk ./...
	@sh scripts/servers.sh notice

.PHONY: test-all-components
test-all-components: # what is in builds with the tag alone; -trimpath shares the compiled libraries with all-components
	go vet -trimpath -tags all_components ./components/contrib ./tests/everything
	go test -trimpath -tags all_components -run 'TestHeavy' ./components/contrib
	go test -trimpath -tags all_components ./tests/everything

.PHONY: race
race: ## the tests of everything that runs concurrently, under the race detector
	CGO_ENABLED=1 go test -race -short -timeout 20m ./...

.PHONY: tools
tools: # the programs of tools/go.mod, in the versions it pins
	@CGO_ENABLED=0 go build -C tools -o $(TOOLS)/ tool

.PHONY: lint
lint: tools ## gofmt, vet, staticcheck, buf lint, govulncheck
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo 'run gofmt on:'; gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	$(TOOLS)/staticcheck ./...
	cd sdk/proto && $(TOOLS)/buf lint
	@GOVULNCHECK=$(TOOLS)/govulncheck sh scripts/vulnerabilities.sh

.PHONY: gen
gen: tools ## generate Go code from the proto, and the reference pages from the code
	cd sdk/proto && PATH="$(TOOLS):$$PATH" buf generate
	cd sdk/proto && $(TOOLS)/buf build --as-file-descriptor-set -o $(CURDIR)/bin/api.binpb
	go test ./components/datasheet -run TestSheets -update
	$(MAKE) build
	bin/sidecast reference --out docs/reference --descriptors bin/api.binpb
	go test ./tests/compat/catalogue -run TestPage -update

.PHONY: stale
stale: gen ## fail when generated files are not committed
	@git diff --exit-code -- sdk docs components/datasheet || { echo 'generated files are stale: run make gen and commit'; exit 1; }

.PHONY: cross
cross: ## build for every platform
	@for target in $(TARGETS); do echo "build $$target"; \
		GOOS=$${target%/*} GOARCH=$${target#*/} go build -trimpath -ldflags '$(LDFLAGS)' -o /dev/null ./cmd/runtime || exit 1; done

.PHONY: mongo
mongo: ## fetch a stand-in for MongoDB, for the tests of state.mongodb
	mvn -q -B -f tests/servers/mongo/pom.xml dependency:copy-dependencies

.PHONY: bench
bench: build ## measure the sidecars beside a direct gRPC call; writes bin/bench.json
	go run ./tests/bench -sidecast bin/sidecast -json bin/bench.json

.PHONY: check
check: lint stale test test-all-components race cross ## all that CI does

.PHONY: clean
clean: ## remove what was built
	rm -rf bin examples/orders/bin
