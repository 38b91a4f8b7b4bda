# Knarr: every target sets up what it needs. `make up` and `make test` are all that a newcomer has to know.
#
# CARGO_TARGET_DIR keeps the build cache outside the checkout, so that a fresh clone builds warm.
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/knarr-target
DATA_DIR ?= /var/lib/knarr
KNARR := $(CARGO_TARGET_DIR)/release/knarr
IMAGES := $(CARGO_TARGET_DIR)/images
export PATH := $(HOME)/.cargo/bin:$(PATH)
# Pods need root. Who is not root builds without, and becomes it for the cluster alone.
AS_ROOT := $(if $(filter-out 0,$(shell id -u)),sudo)

.PHONY: help up down purge build images test lint bench setup setup-test generate

help: ## show this
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

up: setup build images ## build, start a cluster and load the demo's images
	@$(AS_ROOT) $(KNARR) up --detach --data-dir $(DATA_DIR)
	@$(AS_ROOT) $(KNARR) images load --data-dir $(DATA_DIR) $(IMAGES)/busybox.tar $(IMAGES)/web.tar
	@scripts/welcome $(DATA_DIR)

down: ## stop the cluster; its pods keep running
	@$(AS_ROOT) $(KNARR) down --data-dir $(DATA_DIR)

purge: ## stop the cluster and remove everything it made
	@$(AS_ROOT) $(KNARR) down --purge --data-dir $(DATA_DIR)
	@rm -f $(HOME)/.kube/knarr.kubeconfig

build:
	cargo build --release --locked -p knarr

images: ## write the demo's and the tests' images as archives
	@cargo run --release --locked --quiet -p knarr-image --bin mkimage -- $(IMAGES)

test: setup-test ## run every test
	@scripts/test

lint: setup ## formatting and clippy, warnings are errors
	cargo fmt --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

bench: setup-test build ## measure the figures of docs/specification.md
	@scripts/bench

setup: ## install the Debian packages that building and running need
	@scripts/setup run

setup-test:
	@scripts/setup run test

generate: ## rebuild knarr-api/generated from the facts in FACTS
	cargo xtask generate $(FACTS)
