#!/usr/bin/env bash
# Makes or updates .venv from requirements.lock; `make setup` runs it. A complete .venv whose Python can still be used is
# updated. Otherwise .venv is made again, with PYTHON or with the newest Python of requires-python that runs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
PATH=:$PATH:
PATH=${PATH//":$PWD/.venv/bin:"/:} # .venv may be active
PATH=${PATH#:} PATH=${PATH%:}

read -r oldest above < <(sed -nE 's/^requires-python = ">=3\.([0-9]+),<3\.([0-9]+)".*/\1 \2/p' pyproject.toml)
versions=
for ((minor = above - 1; minor >= oldest; minor--)); do versions+="${versions:+ }3.$minor"; done
uv=$(type -P uv || true)
"${uv:-false}" --version >/dev/null 2>&1 || uv=
modules="bz2 ctypes lzma ssl zlib"
[ -n "$uv" ] || modules+=" ensurepip venv"

# Prints VERSION|INTERPRETER|PROBLEM of a Python; the interpreter is the base of a virtual environment.
describe='
import sys, sysconfig
missing = []
for name in sys.argv[1:]:
    try:
        __import__(name)
    except ImportError:
        missing.append(name)
if sys.implementation.name != "cpython":
    problem = "not CPython"
elif sys.maxsize < 2**32:
    problem = "32-bit"
elif sysconfig.get_config_var("Py_GIL_DISABLED"):
    problem = "free-threaded"
else:
    problem = missing and "lacks " + " and ".join(missing) or ""
print("%d.%d|%s|%s" % (sys.version_info[:2] + (getattr(sys, "_base_executable", None) or sys.executable, problem)))
'
refused=

# usable PYTHON: sets version and interpreter. A Python that cannot be used is added to refused with the reason.
usable() {
    local answer problem
    if answer=$("$1" -I -c "$describe" $modules </dev/null 2>/dev/null) && [[ $answer == *"|"*"|"* ]]; then
        IFS='|' read -r version interpreter problem <<<"$answer"
        [[ " $versions " == *" $version "* ]] || problem="Python $version"
        [[ $problem != *ensurepip* ]] || problem+=": apt install python$version-venv"
    else
        problem="does not run"
    fi
    [ -z "$problem" ] || refused+="${refused:+, }$1 ($problem)"
    [ -z "$problem" ]
}

candidates() {
    if [ -n "${PYTHON-}" ]; then
        type -aP "$PYTHON" || echo "$PYTHON"
        return
    fi
    type -aP $(printf 'python%s ' $versions) python3 python || true
    [ -z "$uv" ] || for version in $versions; do
        "$uv" python find --no-project --system "$version" 2>/dev/null || true
    done
}

# Sets chosen to the newest of the candidates.
choose() {
    local newest=0 candidate
    chosen=
    while IFS= read -r candidate; do
        if usable "$candidate" && [ "${version#3.}" -gt "$newest" ]; then
            newest=${version#3.} chosen=$interpreter
        fi
    done < <(candidates)
    [ -z "$chosen" ] || return 0
    echo "error: AlexNet Lab needs Python 3.$oldest to ${versions%% *} (64-bit); found: ${refused:-none}. Install one, for" \
        "example by \`uv python install ${versions%% *}\`, \`apt install python3-venv\` (Debian 12, Ubuntu 24.04 or newer) or" \
        "\`brew install python@${versions%% *}\`; make setup PYTHON=PATH uses the one at PATH" >&2
    exit 1
}

# Whether .venv is complete and its Python can be used and is PYTHON, if that is given.
keep() {
    [ -e .venv/.installed ] && usable .venv/bin/python || return 1
    local base=$interpreter
    [ -z "${PYTHON-}" ] || choose
    [ "${chosen:-$base}" -ef "$base" ]
}

empty() {
    [ ! -e .venv/ ] || find .venv/ -mindepth 1 -delete # .venv itself may be a link
}

if keep; then
    rm -f .venv/.installed*
else
    refused=
    choose
    echo "making .venv with $chosen"
    trap 'empty; rmdir .venv 2>/dev/null || true' EXIT
    empty
    if [ -n "$uv" ]; then
        "$uv" venv --quiet --python "$chosen" .venv
    else
        "$chosen" -m venv .venv
    fi
fi
if [ -z "$uv" ]; then
    sed -n '/^uv==/,/[^\\]$/p' requirements.lock | .venv/bin/python -m pip install --quiet --require-hashes -r /dev/stdin
    uv=.venv/bin/uv
fi
"$uv" pip install --python .venv/bin/python --require-hashes --compile-bytecode -r requirements.lock
"$uv" pip install --python .venv/bin/python --no-deps --no-build-isolation --editable .
trap - EXIT
