#!/bin/sh
# Everything that has to hold: set-up, linters, types, import contracts, tests.
# usage: sh deploy/test.sh [pytest arguments]        e.g. sh deploy/test.sh -m "not slow"
set -eu
cd "$(dirname -- "$0")/.."
. deploy/setup.sh
set_up test
install_packages dcmtk dicom3tools openssl orthanc orthanc-dicomweb postgresql prometheus systemd chromium chromium-driver || say "tests that need them are skipped, and say so"
bin=.venv/bin
say "ruff"; $bin/ruff check .
say "mypy"; $bin/mypy
say "import contracts"; $bin/lint-imports >/dev/null || { $bin/lint-imports; exit 1; }
say "pytest"
exec $bin/python -m pytest -n 2 --dist loadgroup --durations 15 "$@"
