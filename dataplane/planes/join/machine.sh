#!/bin/sh
# Makes this machine the node of a Cytoplane data plane: agent, gateway and resolver; no control plane.
# Debian 12, as root. The token is in CYTOPLANE_TOKEN. May be run again: what is there is brought up to date.
set -eu
# values

step() { printf -- '-----> %s\n' "$1" >&2; }
fail() { printf ' !     %s\n' "$1" >&2; exit 1; }

main() {
	umask 022
	home=${CYTOPLANE_HOME:-/var/lib/cytoplane}
	token=${CYTOPLANE_TOKEN:-}
	unset CYTOPLANE_TOKEN
	[ -n "$token" ] || fail "CYTOPLANE_TOKEN holds no token: use the whole command that was shown."
	[ "$(id -u)" = 0 ] || fail "This needs root: it loads kernel programs. Run the command as root."
	for name in curl python3 sha256sum tar; do
		command -v "$name" >/dev/null || fail "$name is missing: apt-get install curl python3 coreutils tar"
	done
	if [ -e "$home/config.toml" ] && ! grep -q '^role = "node"$' "$home/config.toml"; then
		fail "$home holds an installation with a control plane. Set CYTOPLANE_HOME to another folder."
	fi

	step "Fetching the node's code from $url"
	mkdir -p "$home"
	chmod 755 "$home"
	rm -rf "$home/source.new"
	mkdir "$home/source.new"
	# By standard input: arguments can be read by everybody on this machine.
	printf 'Authorization: Bearer %s\n' "$token" |
		curl -fsSk --pinnedpubkey "$pin" -H @- -o "$home/source.new/code.tar.gz" "$url/join/machine/code" ||
		fail "The code isn't given out: the token is used or older than an hour, or the key has changed. Make another one."
	echo "$digest  $home/source.new/code.tar.gz" | sha256sum -c --quiet >/dev/null ||
		fail "What was fetched isn't what the script names."
	tar -xzf "$home/source.new/code.tar.gz" -C "$home/source.new" --no-same-owner
	rm -f "$home/source.new/code.tar.gz"
	rm -rf "$home/source"
	mv "$home/source.new" "$home/source"

	venv=$(sh "$home/source/infra/bootstrap.sh" node)
	step "Starting the node"
	export CYTOPLANE_HOME="$home" CYTOPLANE_ROLE=node CYTOPLANE_CONTROL_URL="$url"
	cd "$home/source"
	printf '%s' "$token" | PYTHONPATH="$home/source" PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" -m infra.control join
}

main
