#!/usr/bin/env bash
# A wheel as a user gets it: a fresh virtual environment, and the demo of each plugin away from the checkout.
# from_wheel.sh WHEEL [PYTHON]
set -euo pipefail
wheel=$(realpath "$1")
python=${2:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"$python" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "$wheel"
venv/bin/medcl --version
venv/bin/medcl doctor
for plugin in biosignals ct pathology; do
  venv/bin/medcl demo --plugin "$plugin" --out "demo-$plugin" -s trainer.steps="${STEPS:-20}"
  test -s "demo-$plugin/report.html"
done
echo "The demo of each plugin ran from $(basename "$wheel")."
