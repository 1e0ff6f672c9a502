//! The settings that sessions rely on.
//!
//! A role, a database or a vendor may have changed any default. So a session
//! sets whatever changes what a statement returns, when it ends, or how it is
//! planned. What is left alone: `default_transaction_read_only`, which says that
//! writes are not wanted, and the level of `synchronous_commit`, as long as it
//! is on.
//!
//! Where the session is ours the settings are part of the startup packet, which
//! takes precedence over those of roles and databases. Behind a transaction
//! pooler they are set for one transaction.

use std::fmt::Write as _;

use super::rollup::LANE_STATEMENT_TIMEOUT;

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settings {
    /// For reading, and for everything that is not one of the others.
    Read,
    /// For lanes.
    Lane,
    /// For the listener, which is idle for ever.
    Listener,
    /// For migrations, which may take long.
    Migration,
}

/// For every session. A setting that all supported versions know, and that
/// every role may change.
const FOR_ALL: [(&str, &str); 13] = [
    // Names of ours are qualified; nobody else's are meant.
    ("search_path", "pg_catalog"),
    // Locks are taken, and rows read again, on the assumption of this level.
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    // Idle sessions are kept on purpose; the listener always idles.
    ("idle_session_timeout", "0"),
    // Violated keys are the concurrency check; they must not end the session.
    ("exit_on_error", "off"),
    ("standard_conforming_strings", "on"),
    ("backslash_quote", "safe_encoding"),
    ("transform_null_equals", "off"),
    ("array_nulls", "on"),
    // A search by tags would miss tasks at random.
    ("gin_fuzzy_search_limit", "0"),
    ("bytea_output", "hex"),
    ("client_min_messages", "warning"),
    // Compiling takes longer than any statement of ours.
    ("jit", "off"),
];

/// How statements on our tables are planned.
const FOR_PLANS: [(&str, &str); 15] = [
    // Every statement has an index to go by. While a table is small the
    // planner would rather read all of it, for each row of another.
    ("enable_seqscan", "off"),
    ("enable_indexscan", "on"),
    ("enable_indexonlyscan", "on"),
    ("enable_bitmapscan", "on"),
    ("enable_tidscan", "on"),
    ("enable_nestloop", "on"),
    ("enable_hashjoin", "on"),
    ("enable_hashagg", "on"),
    ("enable_sort", "on"),
    ("enable_material", "on"),
    ("from_collapse_limit", "8"),
    ("join_collapse_limit", "8"),
    ("geqo", "on"),
    ("constraint_exclusion", "partition"),
    // Statements are short; starting workers takes longer.
    ("max_parallel_workers_per_gather", "0"),
];

impl Settings {
    /// Returns names and values.
    pub(super) fn values(self) -> Vec<(&'static str, String)> {
        let mut settings: Vec<(&'static str, String)> = Vec::new();
        let mut set = |name, value: &str| settings.push((name, value.to_owned()));
        for (name, value) in FOR_ALL {
            set(name, value);
        }
        if matches!(self, Self::Read | Self::Lane) {
            for (name, value) in FOR_PLANS {
                set(name, value);
            }
        }
        match self {
            Self::Read => {
                set("statement_timeout", "30s");
                set("lock_timeout", "0");
                set("idle_in_transaction_session_timeout", "10s");
                set("plan_cache_mode", "auto");
                set("enable_mergejoin", "on");
            }
            Self::Lane => {
                // Rows that others remove stay longer than this.
                set("statement_timeout", &format!("{}ms", LANE_STATEMENT_TIMEOUT.as_millis()));
                // Longer than Postgres takes to find a deadlock (a second unless
                // configured otherwise), so that it ends one side and not both.
                set("lock_timeout", "1250ms");
                set("idle_in_transaction_session_timeout", "10s");
                // The append is planned once: batches differ in size, not in plan.
                set("plan_cache_mode", "force_generic_plan");
                set("enable_mergejoin", "off");
                set("seq_page_cost", "1");
                set("random_page_cost", "1.1");
            }
            Self::Listener | Self::Migration => {
                set("statement_timeout", "0");
                set("lock_timeout", "0");
                set("idle_in_transaction_session_timeout", "0");
            }
        }
        settings
    }

    /// Returns the statements that begin a transaction with these settings,
    /// whatever session it gets.
    pub(super) fn begin(self) -> String {
        // Not READ WRITE: a database that is read-only is so for us, too.
        let mut begin = String::from("BEGIN ISOLATION LEVEL READ COMMITTED NOT DEFERRABLE");
        self.write_all(&mut begin, true);
        begin
    }

    /// Returns the statements that complete the settings of a session of ours.
    pub(super) fn complete(self) -> String {
        let mut complete = String::new();
        self.write_conditional(&mut complete, false);
        complete.split_off("; ".len())
    }

    /// Returns the statements that set everything for a session of ours that
    /// began without.
    pub(super) fn set(self) -> String {
        let mut set = String::new();
        self.write_all(&mut set, false);
        set.split_off("; ".len())
    }

    fn write_all(self, sql: &mut String, is_local: bool) {
        let set = if is_local { "SET LOCAL" } else { "SET" };
        // These decide how long the statement that sets the others takes, and
        // may take. All in one statement is much cheaper than one for each.
        let (first, others): (Vec<_>, Vec<_>) = self
            .values()
            .into_iter()
            .partition(|(name, _)| matches!(*name, "jit" | "statement_timeout"));
        for (name, value) in first {
            // Names and values are ours; none needs escaping.
            // Writing to a String cannot fail.
            let _ = write!(sql, "; {set} {name} = '{value}'");
        }
        let others: Vec<String> = others
            .into_iter()
            .map(|(name, value)| format!("pg_catalog.set_config('{name}', '{value}', {is_local})"))
            .collect();
        let _ = write!(sql, "; SELECT {}", others.join(", "));
        self.write_conditional(sql, is_local);
    }

    /// Adds settings that depend on what is there.
    fn write_conditional(self, sql: &mut String, is_local: bool) {
        // Known since version 17.
        let _ = write!(
            sql,
            "; SELECT pg_catalog.set_config('transaction_timeout', '0', {is_local}) \
             WHERE pg_catalog.current_setting('server_version_num')::pg_catalog.int4 >= 170000"
        );
        if self == Self::Lane {
            // An answer follows the commit, and the commit is durable.
            let _ = write!(
                sql,
                "; SELECT pg_catalog.set_config('synchronous_commit', 'on', {is_local}) \
                 WHERE pg_catalog.current_setting('synchronous_commit') = 'off'"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_needs_escaping_and_no_setting_stands_twice() {
        for settings in [Settings::Read, Settings::Lane, Settings::Listener, Settings::Migration] {
            let values = settings.values();
            let mut names: Vec<_> = values.iter().map(|(name, _)| *name).collect();
            names.sort_unstable();
            assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
            assert!(values.iter().all(|(_, value)| !value.contains(['\'', '\\'])));
        }
    }
}
