# make help lists the targets.
.DEFAULT_GOAL := help
GO ?= go
# bench and deploy are modules of their own, which ./... leaves out.
MODULES := . bench deploy
PACKAGES := ./... ./bench/... ./deploy/...

.PHONY: help
help: ## What can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## The command, as bin/drover
	$(GO) build -trimpath -ldflags="-s -w" -o bin/drover .

.PHONY: wheel
wheel: build ## Write the Python package for tests, editors and mypy to dist/; builds are reproducible
	bin/drover worker wheel dist

RELEASE := dist/release
.PHONY: release
release: ## Build the archives, Debian packages, wheels, checksums and bills of materials in dist/release; RELEASE_FLAGS=-dirty allows uncommitted changes
	$(GO) run ./internal/release/makerelease -out $(RELEASE) $(RELEASE_FLAGS) \
		-nfpm "$$(GOWORK=off $(GO) -C tools tool -n nfpm)" -sbom "$$(GOWORK=off $(GO) -C tools tool -n cyclonedx-gomod)"

# Go's cache of test results does not notice changes of the files that deploy's tests read outside their module.
.PHONY: test
test: ## All tests, with the race detector; needs Go and python3, and for some what make azurite and make sdks install
	$(GO) vet $(PACKAGES)
	$(GO) test -race -parallel 4 -timeout 40m ./... ./bench/...
	$(GO) test -race -parallel 4 -count=1 ./deploy/...

# What the fuzzing finds is kept in testdata/fuzz, and is a case of make test from then on.
FUZZ ?= 1000000x
.PHONY: fuzz
fuzz: ## Fuzz the worker protocol, a million cases a target: both ends, and a whole worker; FUZZ=60s for less. Needs python3 and node
	for target in FuzzParser FuzzDecode FuzzResult FuzzPart FuzzInvoke; do $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZ) -fuzzminimizetime 10x ./handlers/workers/protocol || exit 1; done
	$(GO) test -run '^$$' -fuzz '^FuzzWorker$$' -fuzztime $(FUZZ) -fuzzminimizetime 10x ./handlers/workers/worker
	for of in python node; do $(GO) test -run '^$$' -fuzz '^FuzzReader$$' -fuzztime $(FUZZ) -fuzzminimizetime 10x ./handlers/$$of || exit 1; done

.PHONY: azurite
azurite: ## Install Azurite, for the tests of storage queues; needs Node.js
	npm ci --prefix triggers/storagequeue/azuritetest/testdata --no-audit --no-fund --ignore-scripts

SDKS := triggers/sdktest/testdata
.PHONY: sdks
sdks: ## Install test dependencies: SDKs for Python and JavaScript, mypy, TypeScript, and natscli; needs python3 with venv, and Node.js
	npm ci --prefix $(SDKS) --no-audit --no-fund --ignore-scripts
	python3 -m venv $(SDKS)/venv
	$(SDKS)/venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement $(SDKS)/requirements.txt
	GOBIN=$(CURDIR)/$(SDKS)/bin $(GO) install github.com/nats-io/natscli/nats@v0.5.1

# Each line of azure-functions that is in use, on a Python that it supports.
FUNCTION_APPS := handlers/python/testdata/functionapps
.PHONY: functionapps
functionapps: ## Install azure-functions for two versions of Python, and Azure's runtime, for the tests of function apps; needs python3.10 and python3.13, or those of pyenv
	for environment in 3.10:3.10 3.13:3.13 oracle:3.13; do name=$${environment%%:*}; version=$${environment#*:}; \
		for python in python$$version $$HOME/.pyenv/versions/$$version.*/bin/python3 ""; do "$$python" -c "" 2>/dev/null && break; done; \
		test -n "$$python" || { echo "there is no python$$version; install it, or run: pyenv install $$version"; exit 1; }; \
		"$$python" -m venv $(FUNCTION_APPS)/$$name && $(FUNCTION_APPS)/$$name/bin/python -m pip install --quiet --disable-pip-version-check --requirement $(FUNCTION_APPS)/requirements-$$name.txt || exit 1; done

# The packages carry the program, for x64 and for arm64.
NODES ?= 22 24 latest
.PHONY: nodes
nodes: ## Install other versions of Node.js, for the tests of its worker; needs npm
	for version in $(NODES); do npm install --prefix handlers/node/testdata/versions/$$version --no-save --no-audit --no-fund --ignore-scripts \
		node-linux-$$(case $$(uname -m) in aarch64|arm64) echo arm64;; *) echo x64;; esac)@$$version || exit 1; done

.PHONY: sdk-live
sdk-live: ## Azure's own live tests against the Service Bus emulator; listens on the ports 443 and 5671
	$(GO) test -race -count=1 -tags sdklive -run TestSDKLive -timeout 15m ./triggers/servicebus/emulator

.PHONY: reference
reference: ## Generate the reference of all keys in docs/configuration.md from the schema
	$(GO) test -count=1 -run TestConfigurationPage ./configs -write

.PHONY: lint
lint: ## Each go.mod is complete, and the linters that tools/go.mod pins
	for module in $(MODULES); do GOWORK=off $(GO) -C $$module mod tidy -diff || exit 1; done
	"$$(GOWORK=off $(GO) -C tools tool -n golangci-lint)" run $(PACKAGES)

.PHONY: npm-package
npm-package: ## Write the npm package drover-functions, for tests of Node.js functions, to dist/
	$(GO) run . worker npm-package dist

.PHONY: demo
demo: ## The main job: three functions under load for 20 seconds
	$(GO) run . demo

.PHONY: recording
recording: build ## Record drover demo as docs/demo.svg
	$(GO) run ./internal/recording -o docs/demo.svg -prompt "drover demo" bin/drover demo --for 12s

.PHONY: bench
bench: ## Throughput beside the ceiling: about ten minutes on two cores
	$(GO) run ./bench throughput

.PHONY: image
image: ## The container image
	docker build -t drover .
