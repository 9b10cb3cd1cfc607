#!/usr/bin/env bash
# JupyterHub's own tests, as acceptance, over the mixin: every spawner they use takes leases.
# Each part is a pytest process of its own, since each starts a hub of its own.
# Usage: run_hub_suite.sh [short]; PYTHON names the interpreter whose JupyterHub is meant.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-$here/../../.venv/bin/python}
tests=$("$python" -c 'import jupyterhub.tests as t; print(t.__path__[0])')
proxy=$("$python" -c 'import sys; print(sys.prefix)')/proxy/node_modules/.bin
export PATH="$(dirname "$python"):$proxy:$PATH"
export PYTHONPATH="$here/hub_suite${PYTHONPATH:+:$PYTHONPATH}"
# The hub's helpers write into the current folder.
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"

run() {
  echo "== JupyterHub's own $1 ${*:2}"
  "$python" -m pytest -q -p migspawner_plugin -c "$here/hub_suite/pytest.ini" --rootdir "$tests" "$tests/$1" "${@:2}"
}

echo "== What a spawner that lends something must get right"
"$python" -m pytest -q -p migspawner_plugin -p jupyterhub.tests.conftest -c "$here/hub_suite/pytest.ini" \
  --rootdir "$here/hub_suite" "$here/hub_suite/test_pitfalls.py"
run test_named_servers.py
if [[ ${1:-} == short ]]; then exit 0; fi
run test_api.py -k "spawn or server or stop or progress or pending"
run test_pages.py -k spawn
run test_app.py -k "resume or spawner"
