# Sourced by the scripts: makes .venv in the clone, and puts in what is asked for.
#
#   prepare            the run-time requirements
#   prepare sentinel   and what tega-sentinel needs
#   prepare test       and what the tests need
#   prepare fuzz       and what scripts/fuzz needs
#
# Nothing is downloaded again while requirements.txt and setup.py are unchanged. Scripts that are
# started together wait for the first one to have made it.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=$root/.venv/bin/python

find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11 python3.10; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "tega needs Python 3.10 or later: sudo apt-get install python3 python3-venv" >&2
    return 1
}

is_fresh() {
    [ -f "$1" ] && [ "$1" -nt "$root/requirements.txt" ] && [ "$1" -nt "$root/setup.py" ] \
        && "$python" -c '' 2>/dev/null
}

is_prepared() {
    # What the tests need holds what a run needs.
    is_fresh "$1" || { [ "${2:-}" != fuzz ] && is_fresh "$root/.venv/.prepared-test"; }
}

prepare() {
    local extra=${1:-} mark
    mark=$root/.venv/.prepared${extra:+-$extra}
    # In a process of its own: the lock, which is on this file, ends with it.
    is_prepared "$mark" "$extra" || (make_venv "$mark" "$extra") 9< "$root/scripts/lib/venv.sh" || exit 1
}

make_venv() {
    local mark=$1 extra=$2 base
    flock 9
    if is_prepared "$mark" "$extra"; then
        return
    fi
    base=$(find_python) || exit 1
    if ! "$python" -c '' 2>/dev/null; then
        echo "making $root/.venv with $("$base" --version)" >&2
        if ! "$base" -m venv --clear "$root/.venv"; then
            echo "a virtual environment cannot be made: sudo apt-get install python3-venv" >&2
            exit 1
        fi
    fi
    echo "installing requirements into .venv${extra:+ ($extra)}" >&2
    local files=(-r "$root/requirements.txt")
    [ -n "$extra" ] && files+=(-r "$root/requirements-$extra.txt")
    if ! "$python" -m pip install --quiet --disable-pip-version-check "${files[@]}" >&2 \
        || ! "$python" -m pip install --quiet --disable-pip-version-check --no-deps \
            --editable "$root" >&2; then
        echo "installing the requirements failed: see above; the network must reach PyPI" >&2
        exit 1
    fi
    touch "$mark"
}
