# Functions shared by the scripts in this folder; sourced, not run.
# shellcheck shell=bash

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

heading() { printf '\n==> %s\n' "$*"; }

die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# Without a HOME cargo does not know where its own files are.
ensure_home() {
  if [ -z "${HOME:-}" ]; then
    HOME="$(getent passwd "$(id -u)" 2>/dev/null | cut -d: -f6)"
    [ -n "$HOME" ] || HOME=/
    export HOME
  fi
}

# Prints the prefix that makes a command run with root's rights, or fails when there is none.
root_prefix() {
  if [ "$(id -u)" = 0 ]; then
    return 0
  elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    printf 'sudo'
  else
    return 1
  fi
}

# apt_install PURPOSE PACKAGE...
# Installs Debian packages when that is allowed, else says what to install.
apt_install() {
  local purpose=$1 prefix
  shift
  if command -v apt-get >/dev/null && prefix="$(root_prefix)"; then
    heading "installing $* ($purpose)"
    if ! $prefix env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; then
      # A fresh image has no package lists yet.
      $prefix apt-get update
      $prefix env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" \
        || die "apt-get could not install $* ($purpose)"
    fi
  else
    die "$purpose is missing. Install it with: sudo apt-get install -y $* (on other systems, the packages of the same purpose)"
  fi
}

# Finds cargo, also when the shell's start files were not read.
ensure_rust() {
  ensure_home
  if ! command -v cargo >/dev/null && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
    PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    export PATH
  fi
  command -v cargo >/dev/null || die "cargo is missing. Install Rust as https://rustup.rs describes."
  if ! command -v cc >/dev/null; then
    apt_install "a C compiler and linker" gcc libc6-dev
  fi
}

# Prints the folder with initdb, pg_ctl and postgres of the newest local Postgres, or fails.
postgres_bin() {
  local dir found=""
  if command -v initdb >/dev/null && command -v pg_ctl >/dev/null; then
    found="$(dirname "$(command -v initdb)")"
  fi
  # The glob sorts 9 after 16, so the version decides.
  for dir in $(printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin \
    /usr/local/opt/postgresql*/bin | sort -V); do
    if [ -x "$dir/initdb" ] && [ -x "$dir/pg_ctl" ]; then
      found="$dir"
    fi
  done
  [ -n "$found" ] && printf '%s\n' "$found"
}

ensure_postgres() {
  if ! postgres_bin >/dev/null || ! command -v psql >/dev/null; then
    apt_install "the PostgreSQL server" postgresql
  fi
  postgres_bin >/dev/null || die "no PostgreSQL server was found: initdb and pg_ctl must be on the PATH or in /usr/lib/postgresql/<version>/bin."
}

# Runs a command as somebody Postgres agrees to run as: it refuses root.
unprivileged() {
  if [ "$(id -u)" != 0 ]; then
    "$@"
  else
    (cd / && exec setpriv --reuid "$PG_USER" --regid "$(id -g "$PG_USER")" --clear-groups -- "$@")
  fi
}

# Starts a private cluster that only this script can reach, through a socket, and sets PRIVATE_URL.
# Its files and its server are gone when the script ends.
start_private_postgres() {
  ensure_postgres
  PG_BIN="$(postgres_bin)"
  PG_USER="$(id -un)"
  if [ "$(id -u)" = 0 ]; then
    PG_USER=nobody
    id postgres >/dev/null 2>&1 && PG_USER=postgres
  fi
  # Not below TMPDIR: the path of a socket may have about 100 characters.
  PG_DIR="$(mktemp -d /tmp/taskcast-pg.XXXXXX)"
  trap stop_private_postgres EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  if [ "$(id -u)" = 0 ]; then
    chown "$PG_USER" "$PG_DIR"
  fi
  unprivileged "$PG_BIN/initdb" -D "$PG_DIR/data" -U postgres -A trust -E UTF8 --locale=C -N >"$PG_DIR.log" 2>&1 \
    || { cat "$PG_DIR.log" >&2; die "initdb failed"; }
  unprivileged "$PG_BIN/pg_ctl" -s -w -D "$PG_DIR/data" -l "$PG_DIR/server.log" \
    -o "-c listen_addresses='' -c unix_socket_directories='$PG_DIR' -c fsync=off" start \
    || { cat "$PG_DIR/server.log" >&2; die "the private Postgres did not start"; }
  PRIVATE_URL="postgres://postgres@localhost/postgres?host=$PG_DIR"
}

stop_private_postgres() {
  if [ -n "${PG_DIR:-}" ]; then
    if [ -f "$PG_DIR/data/postmaster.pid" ]; then
      unprivileged "$PG_BIN/pg_ctl" -s -m immediate -D "$PG_DIR/data" stop || true
    fi
    rm -rf "$PG_DIR" "$PG_DIR.log"
    PG_DIR=""
  fi
}

# Applies migrations/*.sql in the order of their names. The binary is not used, because it may not build yet.
apply_migrations() {
  local file one
  private_psql -c 'CREATE SCHEMA IF NOT EXISTS taskcast'
  for file in "$ROOT"/migrations/*.sql; do
    [ -f "$file" ] || die "there are no migrations in $ROOT/migrations"
    case "$file" in *.down.sql) continue ;; esac
    one=--single-transaction
    if head -n 1 "$file" | grep -q '^-- no-transaction'; then
      one=""
    fi
    private_psql ${one:+"$one"} -f "$file" || die "$(basename "$file") failed"
  done
}

private_psql() {
  env -u PGHOST -u PGPORT -u PGUSER -u PGDATABASE -u PGOPTIONS -u PGSERVICE -u PGPASSWORD \
    psql -X -q -v ON_ERROR_STOP=1 -h "$PG_DIR" -U postgres -d postgres "$@"
}

# write_query_data FOLDER
# Writes what the query macros learn from a live, migrated database: one file for each query of the library.
write_query_data() {
  mkdir -p "$1"
  # Cargo would reuse an earlier result, since it does not know that the macros read a database. A flag that differs each
  # time makes it compile this one crate again, on top of the dependencies that the other checks have compiled.
  (
    cd "$ROOT" && SQLX_PREPARE_URL="$PRIVATE_URL" SQLX_PREPARE_DIR="$1" RUSTC_WORKSPACE_WRAPPER="$ROOT/scripts/sqlx-rustc.sh" \
      cargo rustc --quiet --lib --profile check -- --cfg "sqlx_prepare=\"$$-$RANDOM\""
  )
}
