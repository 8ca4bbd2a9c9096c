# SPDX-License-Identifier: MIT
# Thin: every target is one or two commands that can be typed by hand. Nothing here asks anything.
BUILD ?= build
PREFIX ?= /usr/local
export UMDEV_BUILD := $(abspath $(BUILD))

.PHONY: all configure demo check check-fast bench format install clean

all: configure
	ninja -C $(BUILD)

configure:
	@tools/setup build
	@[ -f $(BUILD)/build.ninja ] || meson setup --prefix=$(PREFIX) $(BUILD)

# A private umdevd, devices made by mdevctl and by umdev, a real Linux guest that uses them.
demo: all
	@tools/setup test
	@tools/get-qemu
	@tools/get-guest
	@tools/demo

# Everything that needs neither root nor the network.
check-fast: all
	@tools/run-tests unit fuzz talk fs fault

check: all
	@tools/setup test
	@tools/get-qemu
	@tools/get-varlinkctl
	@tools/get-cleanroot
	@tools/get-clients
	@tools/get-guest
	@tools/get-guest bookworm
	@tools/get-guest bookworm drm
	@tools/get-guest trixie drm
	@tools/get-guest trixie
	@tools/run-tests unit fuzz talk fs fault survive vm

# Measures, one line each; the targets are in docs/performance.md.
bench: all
	@bench/run

format:
	git ls-files '*.c' '*.h' | xargs clang-format -i

install: all
	meson install -C $(BUILD) --no-rebuild

clean:
	rm -rf $(BUILD)
