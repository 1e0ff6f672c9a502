#!/usr/bin/env bash
# Every check of this repository. Installs what is missing when it may, else says what to install.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

started=$SECONDS

# The compiler's allocator hands memory back to the system at once; on small
# machines it spends more time on that than on compiling.
export MALLOC_CONF="${MALLOC_CONF:-dirty_decay_ms:-1,muzzy_decay_ms:-1}"

heading "tools"
ensure_rust
ensure_postgres
if ! command -v pgbouncer >/dev/null; then
  apt_install "PgBouncer, the pooler that some tests put in front of Postgres" pgbouncer
fi
if ! command -v nginx >/dev/null; then
  apt_install "nginx, which some tests put in front of two instances" nginx-light
fi
for component in rustfmt clippy; do
  if ! cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1; then
    command -v rustup >/dev/null || die "$component is missing. Install it with your Rust toolchain."
    rustup component add "$component"
  fi
done
if ! cargo nextest --version >/dev/null 2>&1; then
  cargo install cargo-nextest --locked \
    || die "cargo-nextest is missing. Install it with: cargo install cargo-nextest --locked"
  PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
fi
cargo --version
"$(postgres_bin)/postgres" --version

heading "format"
cargo fmt --check

heading "clippy"
cargo clippy --quiet --all-targets -- -D warnings

heading "query data (.sqlx/) matches sql/ and migrations/"
start_private_postgres
apply_migrations
write_query_data "$PG_DIR/query-data" || die "the crate does not compile against the migrated schema"
diff -rq "$PG_DIR/query-data" .sqlx || die ".sqlx/ is out of date. Run scripts/sqlx-prepare.sh and commit the result."
stop_private_postgres

heading "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --document-private-items

heading "tests"
cargo nextest run

heading "tests against servers that are broken on purpose"
cargo clippy --quiet --features failpoints --test it -- -D warnings
cargo nextest run --features failpoints --test it -E 'test(/^controls::/)'

heading "micro-benches, each once"
cargo test --quiet --bench micro >/dev/null

heading "tests over HTTP, through a transaction pooler"
TASKCAST_TEST_POOLER=beside cargo nextest run --profile pooler

heading "documentation tests"
cargo test --quiet --doc

heading "all checks passed in $((SECONDS - started)) s"
