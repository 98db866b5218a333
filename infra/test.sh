#!/bin/sh
# Lint, then every test in two halves at once; closes with a line that counts them. The argument is the virtual environment.
set -eu
cd "$(dirname "$0")/.."
venv=$1
build=
if [ "$(id -u)" = 0 ]; then
	# The first time on a machine this takes longer than all tests before those that need it: it goes on
	# beside them. They wait for it, or find it in the cache.
	nice infra/kubernetes/build.sh cluster >/dev/null &
	build=$!
fi
status=0
infra/lint.sh "$venv" || status=$?
if [ $status = 0 ]; then
	printf -- '-----> tests\n'
	"$venv/bin/python" -m infra.run_tests || status=$?
elif [ -n "$build" ]; then
	kill "$build" 2>/dev/null || :
fi
[ -z "$build" ] || wait "$build" || :
exit $status
