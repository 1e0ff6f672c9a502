#!/usr/bin/env bash
# Measures this build on this machine: prints the table of docs/performance.md, and exits 1 when a line is below its bar.
# Builds a release, then starts a Postgres and servers of its own and removes them again. Takes about ten minutes.
#
# usage: scripts/bench.sh [--quick] [--markdown] [--only NAMES] [--full]
#   --quick       every line once instead of three times
#   --markdown    print the tables as they stand in docs/performance.md
#   --only NAMES  only these lines, with commas; --only help lists them
#   --full        also whether appends and joins cost the same at event 1,000,000 as at event 10, whether an old
#                 snapshot slows appends down, and two instances on the same tasks (fifteen minutes more)
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

full=no
arguments=()
for argument in "$@"; do
  case "$argument" in
    --full) full=yes ;;
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0" && exit 0 ;;
    *) arguments+=("$argument") ;;
  esac
done

ensure_rust
ensure_postgres
# Each of the idle streams is an open file, of the server and of the load.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true

status=0
cargo bench --quiet --bench table -- ${arguments[@]+"${arguments[@]}"} || status=$?
if [ "$full" = yes ]; then
  heading "event 1,000,000 costs what event 10 did"
  cargo bench --quiet --bench age || status=$?
  heading "an old snapshot does not slow appends down"
  cargo bench --quiet --bench snapshot || status=$?
  heading "two instances on the same tasks"
  cargo bench --quiet --bench contention || status=$?
fi
exit "$((status == 0 ? 0 : 1))"
