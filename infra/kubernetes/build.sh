#!/bin/sh
# Builds Kubernetes' server binaries from Debian's source package into the cache; prints their folder.
# Arguments: the binaries (kube-apiserver if none; kube-controller-manager, kube-scheduler, kubelet and
# kube-proxy are the others). What is cached already costs nothing. May be interrupted at any time: the
# cache gets finished binaries only, and the next run goes on where this one ended. What makes another
# binary quick to add (source and compiler's cache, 1.5 GB) is in `work` there, and may be deleted.
set -eu

version=1.20.2
cache=${CYTOPLANE_CACHE:-/var/cache/cytoplane}/kubernetes-$version
wanted=${*:-kube-apiserver}
started=$(date +%s)
step() { printf -- '-----> %s (%s s)\n' "$1" "$(($(date +%s) - started))" >&2; }

missing=
for binary in $wanted; do
	[ -x "$cache/$binary" ] || missing="$missing $binary"
done
if [ -z "$missing" ] && command -v etcd >/dev/null; then
	echo "$cache"
	exit 0
fi

mkdir -p "$cache"
work=$cache/work
log=$cache/build.log
fail() { tail -20 "$log" >&2; printf ' !     %s; the whole output is in %s\n' "$1" "$log" >&2; exit 1; }

# One build at a time; a second waits and finds everything done.
exec 9>"$cache/lock"
flock 9

# Packages that bring a service must not start it: whoever wants etcd here starts one of their own.
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
if ! command -v etcd >/dev/null; then
	step "Installing etcd"
	{ apt-get update && apt-get install -y --no-install-recommends etcd-server; } >"$log" 2>&1 || fail "apt-get failed"
	[ -n "$missing" ] || { echo "$cache"; exit 0; }
fi
if ! command -v go >/dev/null || ! command -v dpkg-source >/dev/null || ! command -v rsync >/dev/null; then
	step "Installing the compiler"
	{ apt-get update && apt-get install -y --no-install-recommends golang-go dpkg-dev rsync make; } >"$log" 2>&1 || fail "apt-get failed"
fi
if [ ! -d "$work/src/k8s.io/kubernetes" ]; then
	step "Fetching Kubernetes' source"
	rm -rf "$work"
	mkdir -p "$work/apt/lists/partial" "$work/unpacked"
	# A list of sources of its own, so that the machine's isn't changed.
	sources=$work/apt/sources.list
	{ cat /etc/apt/sources.list 2>/dev/null; cat /etc/apt/sources.list.d/*.list 2>/dev/null; } |
		sed -n 's/^deb /deb-src /p' >"$sources"
	if [ ! -s "$sources" ]; then
		for file in /etc/apt/sources.list.d/*.sources; do
			sed 's/^Types:.*/Types: deb-src/' "$file"; echo
		done >"$work/apt/debian.sources" 2>/dev/null || true
		sources=$work/apt/debian.sources
	fi
	options="-o Dir::Etc::SourceList=$sources -o Dir::Etc::SourceParts=- -o Dir::State::Lists=$work/apt/lists -o APT::Sandbox::User=root"
	{ apt-get $options update && cd "$work/unpacked" && apt-get $options source --only-source kubernetes; } >"$log" 2>&1 || fail "the source package can't be had"
	mkdir -p "$work/src/k8s.io"
	folder=$(find "$work/unpacked" -maxdepth 1 -type d -name "kubernetes-*$version*" | head -1)
	[ -n "$folder" ] || fail "the source package isn't Kubernetes $version"
	mv "$folder" "$work/src/k8s.io/kubernetes"
fi

cd "$work/src/k8s.io/kubernetes"
export GOPATH="$work" GO111MODULE=off GOFLAGS= GOCACHE="$work/cache" HOME="$work"
export KUBE_GIT_VERSION=v$version KUBE_GIT_COMMIT=debian KUBE_GIT_TREE_STATE=archive KUBE_GIT_MAJOR=1 KUBE_GIT_MINOR=20
if [ ! -e "$work/generated" ]; then
	step "Generating code"
	make generated_files >>"$log" 2>&1 || fail "make generated_files failed"
	touch "$work/generated"
fi
# In GOPATH mode a vendored package's variables go by its whole path; without them the server says v0.0.0,
# which no chart is compatible with.
flags="-s -w"
for package in component-base/version client-go/pkg/version; do
	name=k8s.io/kubernetes/vendor/k8s.io/$package
	flags="$flags -X $name.gitVersion=v$version -X $name.gitMajor=1 -X $name.gitMinor=20"
done
for binary in $missing; do
	[ ! -x "$cache/$binary" ] || continue
	step "Building $binary"
	go build -ldflags "$flags" -o "$work/$binary" "./cmd/$binary" >>"$log" 2>&1 ||
		fail "$binary can't be built"
	mv "$work/$binary" "$cache/$binary"
done
step "Kubernetes $version is in the cache"
echo "$cache"
