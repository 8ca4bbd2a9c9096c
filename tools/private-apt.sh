# SPDX-License-Identifier: MIT
# For get-qemu and get-guest: packages without root and without touching what is installed. apt-get
# with its own state, an empty list of installed packages (so that it fetches every dependency) and
# the mirror, proxy and keys that this machine's apt uses.
# shellcheck shell=bash

[ "$(dpkg --print-architecture)" = amd64 ] || {
	echo "$(basename "$0"): test guests need an amd64 host so far" >&2
	exit 1
}

# shellcheck disable=SC2034
cache=${XDG_CACHE_HOME:-$HOME/.cache}/umdev
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")

# The mirror of Debian that this machine's apt uses.
mirror() {
	local found
	found=$(apt-get --print-uris update 2>/dev/null |
		sed -n "s|^'\(.*\)/dists/$codename/InRelease'.*|\1|p" | head -n 1)
	[ -n "$found" ] || {
		echo "$(basename "$0"): this machine's apt knows no mirror of Debian $codename" >&2
		return 1
	}
	echo "$found"
}

# private_apt DIR SUITE...: sets the array `apt` to an apt-get that knows these suites.
private_apt() {
	local a=$1 keys=/usr/share/keyrings/debian-archive-keyring.gpg from
	shift
	from=$(mirror)
	mkdir -p "$a/lists/partial" "$a/cache/archives/partial"
	: >"$a/status"
	printf "deb [signed-by=$keys] $from %s main\n" "$@" >"$a/sources.list"
	apt=(apt-get -qq -y --no-install-recommends
		-o Dir::Etc::sourcelist="$a/sources.list" -o Dir::Etc::sourceparts=/dev/null
		-o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null
		-o Dir::State="$a" -o Dir::State::lists="$a/lists" -o Dir::State::status="$a/status"
		-o Dir::Cache="$a/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User="$(id -un)"
		-o Acquire::Languages=none -o Acquire::Retries=3 -o Acquire::http::Timeout=30)
	"${apt[@]}" update </dev/null
}

# publish NEW DIR: makes NEW appear as DIR in one step; an older DIR goes away.
publish() {
	chmod 755 "$1"
	if [ -e "$2" ]; then
		mv "$2" "$1.old"
		mv "$1" "$2"
		rm -rf "$1.old"
	else
		mv "$1" "$2"
	fi
}
