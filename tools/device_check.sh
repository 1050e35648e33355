#!/usr/bin/env bash
# The GPU tests, on a machine with a GPU: a limit for each test and one for all, a log and JUnit XML in $OUT.
#
#   tools/device_check.sh [pytest arguments]          such as -m "not compile", or -k spectra
#
# Needs no installation of this package: it runs the tree that it lies in, with the torch that is there. Beside torch,
# torchvision and timm it needs the modules listed below. What is missing can be carried as wheels:
#   PYTHON=python3            the interpreter
#   WHEELS=folder             of *.whl, installed without an index into a temporary folder first
#   PYTHONPATH=folder         what is unpacked already
#   OUT=device-check          for pytest.log and junit.xml
#   PROBE_TEST_SECONDS=60     for one test
#   ALL_SECONDS=240           for all: then pytest is interrupted, which still writes the XML
#   PROBE_TEST_DEVICE=cpu     to try the tests themselves without a GPU
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
export OUT=$(mkdir -p "${OUT:-device-check}" && cd "${OUT:-device-check}" && pwd)
export PROBE_TEST_SECONDS=${PROBE_TEST_SECONDS:-60} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
extras=
if [ -n "${WHEELS:-}" ]; then
  extras=$(mktemp -d)
  trap 'rm -rf "$extras"' EXIT
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$extras" "$WHEELS"/*.whl || exit 2
fi
export PYTHONPATH=$root${extras:+:$extras}${PYTHONPATH:+:$PYTHONPATH}

"$python" - <<'PYTHON' 2>&1 | tee "$OUT/machine.txt" || exit 2
import importlib.util, os, platform, sys
needed = "torch torchvision timm numpy scipy pandas PIL matplotlib seaborn click rich msgspec filelock jinja2 safetensors pytest"
missing = [name for name in needed.split() if importlib.util.find_spec(name) is None]
if missing:
    sys.exit(f"missing modules: {' '.join(missing)}; carry them as wheels (WHEELS=folder) or on PYTHONPATH")
import timm, torch
cuda = torch.cuda.is_available()
print(f"python {platform.python_version()}, torch {torch.__version__}, timm {timm.__version__}, {os.cpu_count()} cores, "
      f"{torch.cuda.get_device_name(0) if cuda else 'no GPU'}", flush=True)
if not cuda and os.environ.get("PROBE_TEST_DEVICE", "cuda") == "cuda":
    sys.exit("torch finds no GPU: every test would be skipped")
PYTHON

# Warnings of other versions than ours fail nothing here. Slowest first in the log's last lines.
timeout --signal=INT --kill-after=30 "${ALL_SECONDS:-240}" "$python" -m pytest "$root/tests/cuda" --rootdir "$root" \
  -c "$root/pyproject.toml" -v -W default --durations=15 --junit-xml="$OUT/junit.xml" "$@" 2>&1 | tee "$OUT/pytest.log"
