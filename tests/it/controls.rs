//! Negative controls: the fault suite, run against servers that break a
//! promise on purpose. A control passes when the scenario fails, for the reason
//! it should fail for; a scenario that passed would prove nothing.
//!
//! The switches are in `src/failpoints.rs`. A pause holds the window open that
//! a switch opens, so that it takes no luck to fall into it.

use std::panic::catch_unwind;

use crate::faults::{break_servers, crashes, interleavings, locks, subscribing, unknown, wakes};

/// Plays a scenario with broken servers; returns why it failed.
fn failure_of(scenario: fn(), switches: &'static str) -> String {
    break_servers(switches);
    let Err(reason) = catch_unwind(scenario) else {
        panic!("the scenario did not notice {switches}");
    };
    reason.downcast_ref::<String>().expect("a panic with a message").clone()
}

/// Returns what the checker counted under a name, from a verdict in words.
#[track_caller]
fn count(failure: &str, name: &str) -> u64 {
    let at = failure.find(&format!("{name} ")).unwrap_or_else(|| panic!("no {name}: {failure}"));
    let digits = failure[at + name.len() + 1..].split(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("{name}: {failure}"))
}

#[test]
fn a_reply_before_the_commit_is_found_by_killing_the_server() {
    let failure = failure_of(
        crashes::f01_a_server_that_is_killed_loses_nothing_it_acknowledged,
        "reply-before-commit=return(100)",
    );
    assert!(count(&failure, "lost") > 0, "{failure}");
    assert_eq!(count(&failure, "gaps"), 0, "{failure}");
}

#[test]
fn an_event_shown_before_the_commit_is_found_by_killing_the_server() {
    let failure = failure_of(
        crashes::f01_a_server_that_is_killed_loses_nothing_it_acknowledged,
        "show-before-commit=return(100)",
    );
    let shown = ["phantoms", "reused", "surprises"].map(|name| count(&failure, name));
    assert!(shown.iter().sum::<u64>() > 0, "{failure}");
    assert_eq!(count(&failure, "lost"), 0, "{failure}");
}

#[test]
fn not_looking_again_is_found_by_cutting_off_the_listener() {
    let failure = failure_of(
        wakes::f05_a_listener_that_is_cut_off_without_a_word_is_noticed,
        "no-re-read=return",
    );
    let is_late = failure.starts_with("lag ") || count(&failure, "holes") > 0;
    assert!(is_late, "{failure}");
    assert_eq!(count(&failure, "lost"), 0, "{failure}");
}

#[test]
fn reading_before_registering_is_found_by_readers_that_come_at_any_instant() {
    let failure = failure_of(
        subscribing::f17_a_reader_that_comes_at_any_instant_misses_nothing,
        "read-before-register=return(1500)",
    );
    assert!(count(&failure, "holes") > 0, "{failure}");
    assert!(count(&failure, "unfinished") > 0, "{failure}");
    assert_eq!(count(&failure, "lost"), 0, "{failure}");
}

#[test]
fn inserting_in_any_order_is_found_by_a_storm_of_writers() {
    let failure =
        failure_of(locks::f12_a_storm_of_writers_never_locks_itself_up, "unsorted-inserts=return");
    assert!(count(&failure, "deadlocks") > 0, "{failure}");
    assert_eq!(count(&failure, "lost"), 0, "{failure}");
}

#[test]
fn a_receipt_behind_the_log_is_found_by_losing_replies() {
    let failure = failure_of(
        unknown::f06_a_lost_commit_reply_is_resolved_by_its_receipt,
        "receipt-after-log=return",
    );
    assert!(count(&failure, "doubled") > 0, "{failure}");
    assert_eq!(count(&failure, "lost"), 0, "{failure}");
}

#[test]
fn removing_events_at_once_is_found_by_an_append_that_waits() {
    let failure = failure_of(
        interleavings::an_append_that_waits_takes_no_place_of_a_removed_event,
        "remove-at-once=return",
    );
    assert!(failure.contains("was given out twice"), "{failure}");
}

#[test]
fn a_position_from_an_outdated_cache_is_found_by_two_writers_of_a_series() {
    let failure = failure_of(
        interleavings::the_length_of_a_series_counts_what_every_instance_wrote,
        "stale-series=return",
    );
    assert!(failure.contains("more text than its limit"), "{failure}");
}
