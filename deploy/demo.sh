#!/bin/sh
# The main job, to watch: sends studies over C-STORE to a node and shows what comes back to an archive.
# usage: sh deploy/demo.sh [STUDY_DIR …] [--out DIR] [--quick]
set -eu
root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
here=$(pwd)
cd "$root"
. deploy/setup.sh
set_up run
cd "$here"
exec "$root/.venv/bin/pacs-node" demo "$@"
