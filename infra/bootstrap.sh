#!/bin/sh
# Makes a machine ready: Debian packages, virtual environment, front-end assets. With the argument `run`
# without what only tests need, with `node` also without what only a control plane and builds need, with
# `base` the base image of builds as well. Idempotent; what is there
# already costs a fraction of a second. Prints the path of the virtual environment on stdout, progress on
# stderr. Needs root only if packages are missing.
set -eu

wanted=${1:-}
here=$(cd "$(dirname "$0")/.." && pwd)
cache=${CYTOPLANE_CACHE:-/var/cache/cytoplane}
started=$(date +%s)

step() { printf -- '-----> %s (%s s)\n' "$1" "$(($(date +%s) - started))" >&2; }
fail() { printf ' !     %s\n' "$1" >&2; exit 1; }

missing=
while read -r line; do
	line=${line%%#*}
	case $line in
	'['*']'*)
		command=${line#[}; command=${command%%]*}
		! command -v "$command" >/dev/null 2>&1 || continue
		line=${line#*]}
		;;
	esac
	set -- $line
	[ $# -gt 0 ] || continue
	[ "${2:-}" != "(test)" ] || [ -z "$wanted" ] || continue
	[ "${2:-}" != "(platform)" ] || [ "$wanted" != node ] || continue
	dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null | grep -q '^ii' || missing="$missing $1"
done <"$here/infra/packages.txt"

if [ -n "$missing" ]; then
	[ "$(id -u)" = 0 ] || fail "these packages are missing and only root can install them:$missing"
	step "Installing Debian packages:$missing"
	# Packages bring services of their own; none of them is wanted.
	policy=/usr/sbin/policy-rc.d
	[ -e $policy ] && kept=1 || kept=
	if [ -z "$kept" ]; then
		printf '#!/bin/sh\nexit 101\n' >$policy
		chmod 755 $policy
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT
	fi
	export DEBIAN_FRONTEND=noninteractive
	log=$(mktemp)
	{ apt-get update && apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1 ||
		{ tail -20 "$log" >&2; fail "apt-get failed; its whole output is in $log"; }
	rm -f "$log"
	[ -n "$kept" ] || rm -f $policy
	trap - EXIT
fi

mkdir -p "$cache"
base=
if [ "$wanted" = base ] && [ "$(id -u)" = 0 ]; then
	# Most of a minute on a fresh machine; nothing of it waits for what follows here. What can't be made
	# now is tried again, and complained of, by the installation.
	(cd "$here" && nice -n 5 /usr/bin/python3 -m infra.base_recipe "$cache") >/dev/null 2>&1 9>&- &
	base=$!
fi
# Two at once would take each other's half-made folders away.
exec 9>"$cache/bootstrap.lock"
flock 9 || fail "the lock $cache/bootstrap.lock can't be had"
key=$( (cat "$here/requirements.lock"; /usr/bin/python3 --version) | sha256sum | cut -c1-12)
venv=$cache/venv-$key
if [ ! -e "$venv/ready" ]; then
	step "Making the virtual environment $venv"
	rm -rf "$venv"
	/usr/bin/python3 -m venv "$venv"
	log=$(mktemp)
	"$venv/bin/pip" install --no-input --disable-pip-version-check -r "$here/requirements.lock" >"$log" 2>&1 ||
		{ tail -20 "$log" >&2; fail "pip failed; its whole output is in $log"; }
	rm -f "$log"
	site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
	# bcc is Debian's and not on PyPI.
	ln -s /usr/lib/python3/dist-packages/bcc "$site/bcc"
	touch "$venv/ready"
fi

if [ -f "$here/web/package-lock.json" ]; then
	# Two at once would take each other's packages away.
	exec 9>"$cache/assets.lock"
	flock 9
	packages=$(sha256sum <"$here/web/package-lock.json" | cut -c1-12)
	key=$(cd "$here/web" && cat package-lock.json build.mjs tsconfig.json assets/icons.txt $(find assets -type f | sort) | sha256sum | cut -c1-12)
	if [ "$(cat "$here/web/static/build/.key" 2>/dev/null)" != "$key" ]; then
		step "Building the portal's assets"
		log=$(mktemp)
		(
			cd "$here/web" &&
				{ [ "$(cat node_modules/.key 2>/dev/null)" = "$packages" ] ||
					{ npm ci --no-audit --no-fund && echo "$packages" >node_modules/.key; }; } &&
				npm run build
		) >"$log" 2>&1 ||
			{ tail -20 "$log" >&2; fail "the portal's assets can't be built; the whole output is in $log"; }
		rm -f "$log"
		mkdir -p "$here/web/static/build"
		echo "$key" >"$here/web/static/build/.key"
	fi
	exec 9>&-
fi

if [ -n "$base" ] && kill -0 "$base" 2>/dev/null; then
	step "Waiting for the base image"
	wait "$base" || :
fi
step "Machine is ready"
echo "$venv"
