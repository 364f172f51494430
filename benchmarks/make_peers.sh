#!/usr/bin/env bash
# Makes the environments that the commands of benchmarks/ work in, under benchmarks/.peers/:
#   jax     posembed_jax (editable), jax, flax, equinox, keras, keras-hub,    Python 3.12 or newer
#           tokamax, matplotlib
#   torch   torch, transformers, x-transformers, rotary-embedding-torch       Python 3.11 or newer
# Every JAX candidate shares one environment, so that all of them run on the same jax.
# Run it again at any time: an environment that exists is kept and only brought up to date.
#
#   bash benchmarks/make_peers.sh [jax] [torch]
#
# PYTHON_JAX and PYTHON_TORCH name the interpreters, TORCH the requirement for torch (torch==2.13.0).
# pip's own variables are respected, so PIP_EXTRA_INDEX_URL may point at an index of CPU builds of torch.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(dirname "$here")"

find_python() { # minor versions, wanted first: prints the first that runs, looking on PATH and then in pyenv
    local minor candidate
    for minor in "$@"; do
        for candidate in "python3.$minor" "${PYENV_ROOT:-$HOME/.pyenv}/versions/3.$minor".*/bin/python; do
            if "$candidate" -c 'import venv' >/dev/null 2>&1; then
                echo "$candidate"
                return
            fi
        done
    done
    echo python3
}

make_environment() { # name, python, requirements...
    local name="$1" python="$2" bin="$here/.peers/$1/bin"
    shift 2
    [ -x "$bin/python" ] || "$python" -m venv "$here/.peers/$name"
    echo "== $name: $("$bin/python" --version)"
    "$bin/python" -m pip install --quiet --upgrade pip
    "$bin/python" -m pip install --quiet --upgrade "$@"
}

make_jax() {
    make_environment jax "${PYTHON_JAX:-$(find_python 14 13 12)}" \
        jax flax equinox keras keras-hub tokamax matplotlib mpmath
    "$here/.peers/jax/bin/python" -m pip install --quiet --editable "$root"
}

make_torch() {
    make_environment torch "${PYTHON_TORCH:-$(find_python 11 12 13)}" "${TORCH:-torch==2.13.0}" \
        numpy mpmath transformers x-transformers rotary-embedding-torch
}

[ $# -gt 0 ] || set -- jax torch
for name in "$@"; do
    case "$name" in
        jax | torch) "make_$name" ;;
        *) echo "make_peers.sh: unknown environment '$name'; expected jax or torch" >&2; exit 2 ;;
    esac
done
