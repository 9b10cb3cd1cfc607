#!/usr/bin/env bash
# JupyterHub's own tests, as acceptance, over the mixin: every spawner they use takes leases.
# Each part is a pytest process of its own, since each starts a hub of its own. As root, each has a
# network of its own as well, so that parts may run beside each other.
# Usage: run_hub_suite.sh pitfalls|named_servers|api|pages|app...; PYTHON names the interpreter whose
# JupyterHub is meant.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-$here/../../.venv/bin/python}
tests=$("$python" -c 'import jupyterhub.tests as t; print(t.__path__[0])')
proxy=$("$python" -c 'import sys; print(sys.prefix)')/proxy/node_modules/.bin
export PATH="$(dirname "$python"):$proxy:$PATH"
export PYTHONPATH="$here/hub_suite:$here/../stubs:${here%/tests/acceptance}${PYTHONPATH:+:$PYTHONPATH}"
# The hubs of these tests let in anyone who gives a name as its password. Where the tests run as root
# nobody else may reach them: they get a network of their own, with nothing in it but lo.
if [[ $(id -u) == 0 && -z ${OWN_NETWORK:-} ]] && unshare --net true 2>/dev/null; then
  OWN_NETWORK=1 exec unshare --net bash "$here/run_hub_suite.sh" "$@"
fi
if [[ -n ${OWN_NETWORK:-} ]]; then
  # SIOCSIFFLAGS with IFF_UP (netdevice(7)); ip(8) may not be there.
  "$python" -c 'import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 1))'
fi

# The hub's helpers write into the current folder, some of them until after the tests: that a file
# came while they were removed is no failure.
work=$(mktemp -d); trap 'rm -rf "$work" || true' EXIT; cd "$work"

run() {
  echo "== JupyterHub's own $1 ${*:2}"
  "$python" -m pytest -q -p migspawner_plugin -c "$here/hub_suite/pytest.ini" --rootdir "$tests" "$tests/$1" "${@:2}"
}

for part in "$@"; do
  case $part in
    pitfalls)
      echo "== What a spawner that lends something must get right"
      "$python" -m pytest -q -p migspawner_plugin -p jupyterhub.tests.conftest -c "$here/hub_suite/pytest.ini" \
        --rootdir "$here/hub_suite" "$here"/hub_suite/test_*.py ;;
    named_servers) run test_named_servers.py ;;
    api) run test_api.py -k "spawn or server or stop or progress or pending" ;;
    pages) run test_pages.py -k spawn ;;
    app) run test_app.py -k "resume or spawner" ;;
    *) echo "run_hub_suite.sh: there is no part $part" >&2; exit 2 ;;
  esac
done
