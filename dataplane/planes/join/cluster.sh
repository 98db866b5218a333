#!/bin/sh
# Makes a cluster a Cytoplane data plane: the chart `data-plane`, installed with Helm 3 and the kubeconfig that
# helm uses here. The token is in CYTOPLANE_TOKEN. Arguments go on to Helm: `… sh -s -- --set 'clusterNetworks={10.0.0.0/16}'`.
set -eu
# values

step() { printf -- '-----> %s\n' "$1" >&2; }
fail() { printf ' !     %s\n' "$1" >&2; exit 1; }

main() {
	umask 077
	token=${CYTOPLANE_TOKEN:-}
	unset CYTOPLANE_TOKEN
	[ -n "$token" ] || fail "CYTOPLANE_TOKEN holds no token: use the whole command that was shown."
	for name in curl helm sha256sum; do
		command -v "$name" >/dev/null || fail "$name is missing; Helm 3 is described at helm.sh."
	done
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT

	step "Fetching the chart from $url"
	# By standard input: arguments can be read by everybody on this machine.
	printf 'Authorization: Bearer %s\n' "$token" |
		curl -fsSk --pinnedpubkey "$pin" -H @- -o "$work/data-plane.tgz" "$url/join/cluster/code" ||
		fail "The chart isn't given out: the token is used or older than an hour, or the key has changed. Make another one."
	echo "$digest  $work/data-plane.tgz" | sha256sum -c --quiet >/dev/null ||
		fail "What was fetched isn't what the script names."

	step "Installing the chart"
	printf '%s' "$token" >"$work/token"
	helm upgrade --install cytoplane "$work/data-plane.tgz" --namespace cytoplane --create-namespace \
		--set-string "control.url=$url" --set-file "enrolment.token=$work/token" --set "net=${CYTOPLANE_NET:-0}" "$@"
	step "Installed. The portal shows the plane as soon as its controller has joined."
}

main "$@"
