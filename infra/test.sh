#!/bin/sh
# Lint, then every test; closes with a line that counts them. The argument is the virtual environment.
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
	report=$(mktemp)
	"$venv/bin/python" -m pytest -c pyproject.toml --rootdir . -p infra.count "--count-file=$report" ${PYTEST_ARGS:-} || status=$?
	cat "$report"
	rm -f "$report"
elif [ -n "$build" ]; then
	kill "$build" 2>/dev/null || :
fi
[ -z "$build" ] || wait "$build" || :
exit $status
