#!/bin/sh
# Style, types, import contracts and the C compiler's warnings. The argument is the virtual environment.
set -eu
cd "$(dirname "$0")/.."
bin=$1/bin
say() { printf -- '-----> %s\n' "$1"; }
say "ruff"; "$bin/ruff" check --quiet .; "$bin/ruff" format --check --quiet .
say "mypy"; "$bin/mypy" --no-error-summary .
say "import contracts"
contracts=$(PYTHONPATH=.:platform "$bin/lint-imports" --no-cache) || { echo "$contracts"; exit 1; }
echo "$contracts" | tail -8
say "C warnings"; PYTHONPATH=. "$bin/python" -m bpf.check
PYTHONPATH=. "$bin/python" -m dataplane.cni.build >/dev/null
if [ -d web/node_modules ]; then say "TypeScript"; (cd web && npm run --silent check); fi
