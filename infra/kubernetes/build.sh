#!/bin/sh
# Builds Kubernetes' server binaries from Debian's source package into the cache; prints their folder.
# Arguments: the binaries (kube-apiserver if none; kube-controller-manager, kube-scheduler, kubelet and
# kube-proxy are the others; `pause` and `busybox` are what small images are made of), or `cluster` for
# everything that a development cluster needs, containerd included. What is cached already costs nothing.
# May be interrupted at any time: the cache gets finished binaries only, and the next run goes on where this
# one ended. What makes another binary quick to add (source and compiler's cache, 1.5 GB) is in `work`
# there, and may be deleted.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
version=1.20.2
cache=${CYTOPLANE_CACHE:-/var/cache/cytoplane}/kubernetes-$version
wanted=${*:-kube-apiserver}
started=$(date +%s)
step() { printf -- '-----> %s (%s s)\n' "$1" "$(($(date +%s) - started))" >&2; }

whole=
case " $wanted " in
*" cluster "*)
	whole=1
	wanted="pause busybox kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy"
	;;
esac

need() { [ -e "$1" ] || command -v "$1" >/dev/null || packages="$packages $2"; }
# What isn't there yet: `missing` binaries, and `packages`.
look() {
	missing=
	packages=
	for binary in $wanted; do
		[ -x "$cache/$binary" ] || missing="$missing $binary"
	done
	need etcd etcd-server
	if [ -n "$whole" ]; then
		need containerd containerd
		need runc runc
		need iptables iptables
		need /usr/lib/cni/ptp containernetworking-plugins
	fi
	[ -n "$missing$packages" ]
}
if ! look; then
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
look || :

# Packages that bring a service must not start it: whoever wants one here starts one of their own.
install() {
	policy=/usr/sbin/policy-rc.d
	[ -e $policy ] && kept=1 || kept=
	if [ -z "$kept" ]; then
		printf '#!/bin/sh\nexit 101\n' >$policy
		chmod 755 $policy
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT
	fi
	export DEBIAN_FRONTEND=noninteractive
	{ apt-get update && apt-get install -y -o DPkg::Lock::Timeout=300 --no-install-recommends "$@"; } >"$log" 2>&1 || fail "apt-get failed"
	[ -n "$kept" ] || rm -f $policy
	trap - EXIT
}
if [ -n "$packages" ]; then
	step "Installing Debian packages:$packages"
	# shellcheck disable=SC2086  it is a list
	install $packages
fi

# The small ones first: they need no source.
compiled=
for binary in $missing; do
	[ ! -x "$cache/$binary" ] || continue
	case $binary in
	pause)
		if ! command -v gcc >/dev/null || [ ! -e /usr/include/stdlib.h ]; then
			step "Installing the C compiler"
			install gcc libc6-dev
		fi
		step "Building pause"
		gcc -static -Os -s -Wall -Wextra -Werror -o "$cache/pause.new" "$here/pause.c" >"$log" 2>&1 || fail "pause can't be built"
		mv "$cache/pause.new" "$cache/pause"
		;;
	busybox)
		# Unpacked, not installed: the machine may have another one.
		step "Fetching busybox"
		command -v dpkg-deb >/dev/null || fail "dpkg-deb isn't there"
		rm -rf "$cache/busybox.new"
		mkdir "$cache/busybox.new"
		{
			cd "$cache/busybox.new" && { apt-get download busybox-static || { apt-get update && apt-get download busybox-static; }; } &&
				dpkg-deb -x busybox-static_*.deb .
		} >"$log" 2>&1 || fail "busybox-static can't be had"
		cd "$here"
		mv "$(find "$cache/busybox.new" -type f -name busybox -path '*/bin/*')" "$cache/busybox"
		rm -rf "$cache/busybox.new"
		;;
	*) compiled="$compiled $binary" ;;
	esac
done
if [ -z "$compiled" ]; then
	echo "$cache"
	exit 0
fi
if ! command -v go >/dev/null || ! command -v dpkg-source >/dev/null || ! command -v rsync >/dev/null; then
	step "Installing the compiler"
	install golang-go dpkg-dev rsync make
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
for binary in $compiled; do
	[ ! -x "$cache/$binary" ] || continue
	step "Building $binary"
	go build -ldflags "$flags" -o "$work/$binary" "./cmd/$binary" >>"$log" 2>&1 ||
		fail "$binary can't be built"
	mv "$work/$binary" "$cache/$binary"
	# Whoever waits for this one needn't wait for the others.
	flock -u 9
	sleep 1
	flock 9
done
step "Kubernetes $version is in the cache"
echo "$cache"
