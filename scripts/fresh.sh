#!/usr/bin/env bash
# Shows that the README's two commands are enough: clones the committed state into a temporary directory, with an empty
# home and a bare environment, starts `dev`, runs the curl lines it prints, starts it a second time, runs the tests.
#
# usage: scripts/fresh.sh [--no-tests] [--port PORT]
#   --no-tests   leave out the second command
#   --port PORT  start dev there, when its own port is taken
set -euo pipefail
. "$(dirname "$0")/lib.sh"

FIRST_START_LIMIT_MS=15000
LATER_START_LIMIT_MS=2000

run_tests=yes
port=""
while [ $# -gt 0 ]; do
  case "$1" in
    --no-tests) run_tests=no ;;
    --port) port="${2:?--port needs a number}" && shift ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0" && exit 2 ;;
  esac
  shift
done

ensure_rust
cargo_home="${CARGO_HOME:-$HOME/.cargo}"
rustup_home="${RUSTUP_HOME:-$HOME/.rustup}"

# Readable for everybody: as root, dev runs Postgres as another user.
work="$(mktemp -d /tmp/taskcast-fresh.XXXXXX)"
chmod 755 "$work"
mkdir -m 755 "$work/home"
extra=()
if [ "$(id -u)" = 0 ]; then
  # Root's dev does not use the home, and must not find or leave anything in the system's own place.
  mkdir -m 755 "$work/data"
  extra=("XDG_DATA_HOME=$work/data")
fi
if [ -n "$port" ]; then
  extra+=("TASKCAST_PORT=$port")
fi
log="$work/dev.log"
dev_pid=""

cleanup() {
  local status=$?
  trap - EXIT
  if [ "$status" != 0 ] && [ -s "$log" ]; then
    printf '\nThe end of what dev wrote:\n' >&2
    tail -n 30 "$log" >&2
  fi
  stop_dev || true
  # A dev that was stopped hard may have left its Postgres.
  local pid_file
  for pid_file in "$work"/home/.local/share/taskcast/data/postmaster.pid "$work"/data/taskcast/data/postmaster.pid; do
    if [ -f "$pid_file" ]; then
      kill -INT "$(head -n 1 "$pid_file")" 2>/dev/null || true
    fi
  done
  rm -rf "$work"
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

bare_environment=(env -i "PATH=$PATH" "HOME=$work/home" "CARGO_HOME=$cargo_home" "RUSTUP_HOME=$rustup_home")
if [ "${#extra[@]}" -gt 0 ]; then
  bare_environment+=("${extra[@]}")
fi

bare() { "${bare_environment[@]}" "$@"; }

now_ms() { echo $(($(date +%s%N) / 1000000)); }

curl_lines() { grep -E '^[[:space:]]*curl ' "$log" || true; }

# start_dev LIMIT_MS NAME
start_dev() {
  local began elapsed limit=$1 name=$2
  : >"$log"
  began="$(now_ms)"
  # The exec makes the job's id that of cargo, which becomes taskcast without changing it.
  (cd "$work/taskcast" && exec "${bare_environment[@]}" cargo run --release -- dev) >"$log" 2>&1 </dev/null &
  dev_pid=$!
  until [ "$(curl_lines | wc -l)" -ge 3 ]; do
    kill -0 "$dev_pid" 2>/dev/null || die "dev ended before it printed its curl lines ($name)"
    elapsed=$(($(now_ms) - began))
    [ "$elapsed" -le $((limit * 4)) ] || die "dev printed no curl lines within $elapsed ms ($name)"
    sleep 0.02
  done
  elapsed=$(($(now_ms) - began))
  [ "$(curl_lines | wc -l)" = 3 ] || die "dev printed $(curl_lines | wc -l) curl lines, not 3 ($name)"
  [ "$elapsed" -le "$limit" ] || die "$name took $elapsed ms, more than $limit ms"
  printf '%s: %s ms (limit %s)\n' "$name" "$elapsed" "$limit"
}

stop_dev() {
  local waited=0
  [ -n "$dev_pid" ] || return 0
  kill -TERM "$dev_pid" 2>/dev/null || true
  while kill -0 "$dev_pid" 2>/dev/null; do
    if [ "$waited" -ge 150 ]; then
      kill -KILL "$dev_pid" 2>/dev/null || true
      dev_pid=""
      die "dev did not stop within 15 s of SIGTERM"
    fi
    sleep 0.1
    waited=$((waited + 1))
  done
  wait "$dev_pid" || die "dev ended with exit status $? after SIGTERM"
  dev_pid=""
}

# Runs a line that dev printed, just as it stands, and judges its answer.
try_line() {
  local line=$1 answer status=0
  printf '%s\n' "$line"
  # A stream of a task that goes on does not end by itself.
  answer="$(bare timeout 5 bash -c "$line" 2>"$work/curl.err")" || status=$?
  case "$answer" in
    *'event: taskcast.event'*)
      case "$status" in 0 | 28 | 124) ;; *) die "exit status $status: $(cat "$work/curl.err")" ;; esac
      streams=$((streams + 1))
      ;;
    *'"error":'*'"code":'* | *'"code":'*'"error":'*) die "the server refused it: $answer" ;;
    '{'* | '['*) [ "$status" = 0 ] || die "exit status $status: $(cat "$work/curl.err")" ;;
    *) die "no JSON and no event came back (exit status $status): $answer $(cat "$work/curl.err")" ;;
  esac
  printf '%s\n' "$answer" | cut -c 1-200 | head -n 8 | sed 's/^/    /'
}

heading "clone"
git clone --quiet --no-hardlinks "$ROOT" "$work/taskcast"
if [ -n "$(git -C "$ROOT" status --porcelain)" ]; then
  printf 'note: the working tree has changes that are not committed and therefore not tested here\n'
fi

heading "build"
began="$(now_ms)"
(cd "$work/taskcast" && bare cargo build --release --quiet) || die "the release build failed"
printf 'built in %s s\n' "$((($(now_ms) - began) / 1000))"

heading "cargo run --release -- dev"
start_dev "$FIRST_START_LIMIT_MS" "first start"

heading "the lines it printed"
mapfile -t lines < <(curl_lines)
streams=0
for line in "${lines[@]}"; do
  try_line "$line"
done
[ "$streams" -ge 1 ] || die "none of the lines shows a stream"
stop_dev

heading "cargo run --release -- dev, again"
start_dev "$LATER_START_LIMIT_MS" "second start"
stop_dev

if [ "$run_tests" = yes ]; then
  heading "./scripts/test.sh"
  (cd "$work/taskcast" && bare ./scripts/test.sh) || die "./scripts/test.sh failed"
fi

heading "both commands work on a fresh clone"
