#!/usr/bin/env bash
# Writes .sqlx/: what the query macros need to know of the database, so that building needs none.
# To be run after every change below sql/ or migrations/. Starts a private Postgres and removes it again.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

ensure_rust
start_private_postgres
apply_migrations
fresh="$PG_DIR/query-data"
write_query_data "$fresh" || die "the crate does not compile against the migrated schema; .sqlx/ is left as it was"

mkdir -p "$ROOT/.sqlx"
rm -f "$ROOT"/.sqlx/query-*.json
if [ -n "$(ls -A "$fresh")" ]; then
  cp "$fresh"/query-*.json "$ROOT/.sqlx/"
fi
printf '%s queries written to .sqlx/\n' "$(find "$ROOT/.sqlx" -name 'query-*.json' | wc -l)"
