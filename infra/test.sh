#!/bin/sh
# Lint, then every test in groups at once; closes with a line that counts them. The argument is the virtual environment.
set -eu
cd "$(dirname "$0")/.."
venv=$1
build=
if [ "$(id -u)" = 0 ]; then
	# The first time on a machine this takes minutes, and the tests that need it take the longest: it goes on
	# beside everything else, and they come last.
	nice -n 3 infra/kubernetes/build.sh cluster >/dev/null &
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
