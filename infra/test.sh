#!/bin/sh
# Lint, then every test; closes with a line that counts them. The argument is the virtual environment.
set -eu
cd "$(dirname "$0")/.."
venv=$1
infra/lint.sh "$venv"
printf -- '-----> tests\n'
report=$(mktemp)
status=0
"$venv/bin/python" -m pytest -c pyproject.toml --rootdir . -p infra.count "--count-file=$report" ${PYTEST_ARGS:-} || status=$?
cat "$report"
rm -f "$report"
exit $status
