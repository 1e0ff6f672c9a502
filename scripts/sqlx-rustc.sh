#!/usr/bin/env bash
# Cargo calls this in place of rustc while .sqlx/ is written or checked: it is the one way around the offline setting, which
# the build script and .cargo/config.toml make for every other build.
export SQLX_OFFLINE=false DATABASE_URL="$SQLX_PREPARE_URL" SQLX_OFFLINE_DIR="$SQLX_PREPARE_DIR"
exec "$@"
