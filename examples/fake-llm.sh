#!/usr/bin/env bash
# Streams a made-up LLM answer, word by word, to two readers. The first stays connected and shows the words as they come.
# The second joins late, is cut in the middle and resumes with the last id it saw. In the end both must have the same text.
#
# usage: examples/fake-llm.sh [BASE_URL]      (needs bash and curl; start a server with: cargo run --release -- dev)
set -euo pipefail

base="${1:-http://localhost:3721}"
answer="A task is created once and lives as long as the work it stands for. Readers come and go: a tab is refreshed, a \
train enters a tunnel, a server is replaced. Each of them picks up where it was, and none sees a word twice."

work="$(mktemp -d)"
jobs_started=()
stop_all() {
  for pid in ${jobs_started[@]+"${jobs_started[@]}"}; do
    kill "$pid" 2>/dev/null || true
  done
  rm -rf "$work"
}
trap stop_all EXIT

# request METHOD PATH BODY: sends JSON, prints the answer, ends the script when the server refuses.
request() {
  local reply
  reply="$(curl -sS -w '\n%{http_code}' -X "$1" "$base$2" -H 'Content-Type: application/json' -d "$3")"
  case "${reply##*$'\n'}" in
    2*) printf '%s\n' "${reply%$'\n'*}" ;;
    *) printf '%s %s: %s\n' "$1" "$2" "$reply" >&2 && return 1 ;;
  esac
}

# follow FRAMES SHOW [CURL ARGUMENT...]: reads the stream until the task is done (returns 0), FRAMES frames have come and
# the connection is dropped, or the server closes it (both return 1). Keeps `text` and `last_id` up to date.
follow() {
  local frames=$1 show=$2 line name="" data="" seen=0 piece curl_pid
  shift 2
  exec 3< <(exec curl -sSfN "$@" "$base/tasks/$task/events?types=llm.*")
  curl_pid=$!
  while IFS= read -r line <&3; do
    case "$line" in
      'event: '*) name="${line#event: }" ;;
      'data: '*) data="${line#data: }" ;;
      'id: '*) last_id="${line#id: }" ;;
      '')
        # The empty line completes a frame; a comment has no name.
        if [ "$name" = taskcast.done ]; then
          exec 3<&-
          return 0
        elif [ "$name" = taskcast.event ]; then
          piece="$(sed -E 's/.*"data":\{"text":"([^"]*)"\}.*/\1/' <<<"$data")"
          case "$data" in
            *'"seriesSnapshot":true'*) text="$piece" ;;
            *) text+="$piece" ;;
          esac
          if [ "$show" = yes ]; then
            printf '%s' "$piece"
          fi
          seen=$((seen + 1))
          if [ "$seen" = "$frames" ]; then
            kill "$curl_pid" 2>/dev/null || true
            exec 3<&-
            return 1
          fi
        fi
        name=""
        ;;
    esac
  done
  exec 3<&-
  return 1
}

steady_reader() {
  text="" last_id=""
  follow 0 yes || { echo "the first reader's stream broke" >&2 && return 1; }
  printf '%s' "$text" >"$work/steady"
}

cut_reader() {
  text="" last_id=""
  if follow 5 no; then
    echo "the second reader saw the end before it was cut" >&2 && return 1
  fi
  printf '%s' "$text" >"$work/before-cut"
  sleep 1
  follow 0 no -H "Last-Event-ID: $last_id" || { echo "the second reader's stream broke" >&2 && return 1; }
  printf '%s' "$text" >"$work/resumed"
}

created="$(request POST /tasks '{"type":"llm.chat","params":{"prompt":"What is a task?"},"ttl":300}')"
task="$(sed -E 's/^\{"id":"([^"]*)".*/\1/' <<<"$created")"
request PATCH "/tasks/$task/status" '{"status":"running"}' >/dev/null
printf 'Task %s, live:\n\n  ' "$task"

steady_reader &
steady=$!
jobs_started+=("$steady")
cut=""
count=0
for word in $answer; do
  request POST "/tasks/$task/events" \
    '{"type":"llm.delta","data":{"text":"'"$word"' "},"seriesId":"answer","seriesMode":"accumulate"}' >/dev/null
  count=$((count + 1))
  if [ "$count" = 10 ]; then
    cut_reader &
    cut=$!
    jobs_started+=("$cut")
  fi
  sleep 0.08
done
request PATCH "/tasks/$task/status" '{"status":"completed"}' >/dev/null

wait "$steady"
wait "$cut"
printf '\n\nThe second reader joined after ten words and was cut here:\n\n  %s\n\nand had this after it resumed:\n\n  %s\n\n' \
  "$(cat "$work/before-cut")" "$(cat "$work/resumed")"
if [ "$(cat "$work/steady")" = "$answer " ] && cmp -s "$work/steady" "$work/resumed"; then
  echo "Both readers have the whole answer, and no word twice."
else
  echo "The texts differ." >&2
  exit 1
fi
