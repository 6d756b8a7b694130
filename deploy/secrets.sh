#!/bin/sh
# Makes the secrets that deploy/compose.yaml mounts, in deploy/secrets/ (ignored by git); those that are there already stay.
# usage: sh deploy/secrets.sh
set -eu
cd "$(dirname -- "$0")"
umask 077
mkdir -p secrets
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
# The folder is closed to others; the files themselves are read in the containers by users of other numbers.
keep() { [ -s "secrets/$1" ] || { cat >"secrets/$1.part" && chmod 0444 "secrets/$1.part" && mv "secrets/$1.part" "secrets/$1" && echo "made deploy/secrets/$1"; }; }
for name in database_password metrics_token grafana_password; do random | keep "$name"; done
[ -s secrets/archive_users.json ] || printf '{"RegisteredUsers": {"admin": "%s"}}\n' "$(random)" | keep archive_users.json
[ -e secrets/page_users ] || { : >secrets/page_users && chmod 0444 secrets/page_users && echo "made deploy/secrets/page_users, empty: add a user with \`pacs-node user NAME --file deploy/secrets/page_users\`"; }
echo "user of the archive: admin, password in deploy/secrets/archive_users.json; of Grafana: admin, password in deploy/secrets/grafana_password"
