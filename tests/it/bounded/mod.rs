//! Old tasks: what is read of a long log is little, and right.
//!
//! Full blocks of a log are summed up in the background, and so are those
//! sums. These logs are long enough for sums of sums, and have events in them
//! that were replaced and are gone. What readers get is compared with a list
//! of everything that was published, and what Postgres read for it is counted
//! by its own statistics. `cargo bench --bench age` does the counting on logs
//! of a million events.

mod deliveries;
mod lists;
mod log;
mod rows;
mod truth;

use std::sync::Mutex;

use sqlx::Connection as _;
use taskcast::domain::{BLOCK_LEN, Cursor, FAN_OUT, Filter, SeriesMode};
use taskcast::store::Store;

use crate::support::postgres::Database;
use crate::support::until;
use log::{Instance, LONG, Log, filters, mixture, types};
use truth::{Truth, compare};

/// Makes a log of some of everything that is long and summed up.
async fn old_mixture() -> (Database, Instance, Log) {
    let database = Database::migrated().await;
    let instance = Instance::open(&database).await;
    let mut log = Log::create(&instance).await;
    log.grow(&instance, LONG, mixture).await;
    log.await_sums(&database).await;
    (database, instance, log)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_and_snapshots_hold_where_replaced_events_are_gone() {
    let (_database, instance, log) = old_mixture().await;
    for filter in filters() {
        let truth = Truth::new(&log, &filter);
        let context = format!("{filter:?}");
        let joined = instance.read(log.request(&filter, Cursor::default())).await;
        compare(&joined, &truth.collapsed(0, log.length()), &context);
        let from_start = Cursor { filtered_index: Some(-1), ..Cursor::default() };
        let single = instance.read(log.request(&filter, from_start)).await;
        compare(&single, &truth.single(0), &context);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_number_leads_back_to_its_place() {
    let (_database, instance, log) = old_mixture().await;
    for filter in filters() {
        let truth = Truth::new(&log, &filter);
        let passing: Vec<u64> =
            (0..log.length()).filter(|index| truth.passes[*index as usize]).collect();
        let last = passing.len() - 1;
        for number in [0, last / 2, last.saturating_sub(40), last] {
            let index = passing[number];
            let cursor =
                Cursor { filtered_index: Some(number.cast_signed() as i64), ..Cursor::default() };
            let resumed = instance.read(log.request(&filter, cursor)).await;
            let context = format!("{filter:?} after number {number}, event {index}");
            compare(&resumed, &truth.single(index + 1), &context);
        }
        let ahead =
            Cursor { filtered_index: Some(last.cast_signed() as i64 + 5), ..Cursor::default() };
        assert!(instance.read(log.request(&filter, ahead)).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_was_cut_long_ago_is_continued_as_it_was() {
    let database = Database::migrated().await;
    let instance = Instance::open(&database).await;
    let mut log = Log::create(&instance).await;
    log.grow(&instance, 40_500, mixture).await;
    let cut = instance.read(log.request(&Filter::default(), Cursor::default())).await;
    log.grow(&instance, LONG, mixture).await;
    log.await_sums(&database).await;

    // The frames that reader got, as far as they said what they were cut out of.
    let mut cursors: Vec<(u64, u64)> = cut
        .iter()
        .filter_map(|entry| Some((entry.slot.event.index, entry.collapsed_to?)))
        .collect();
    assert!(
        cursors.len() > 10 && cursors.iter().all(|(_, newest)| *newest == 40_499),
        "{cursors:?}"
    );
    cursors = cursors.into_iter().step_by(7).collect();
    // And others, around the edges of blocks and of sums of them.
    cursors.extend([
        (0, 0),
        (0, 1_023),
        (0, 1_024),
        (5, 32_767),
        (5, 32_768),
        (30_000, 32_769),
        (32_768, 65_535),
        (65_530, 65_536),
        (0, LONG - 1),
        (40_000, LONG - 1),
    ]);
    let filters = filters();
    let truths: Vec<Truth<'_>> = filters.iter().map(|filter| Truth::new(&log, filter)).collect();
    for (turn, (seen, newest)) in cursors.into_iter().enumerate() {
        // Every cursor with no filter and with one of the others.
        for which in [0, 1 + turn % (filters.len() - 1)] {
            let id = format!("{}~{newest}", log.id(seen));
            let cursor = Cursor { ids: vec![id], ..Cursor::default() };
            let resumed = instance.read(log.request(&filters[which], cursor)).await;
            let context = format!("{:?} after {seen} of a view up to {newest}", filters[which]);
            compare(&resumed, &truths[which].collapsed(seen + 1, newest + 1), &context);
        }
    }
}

/// Compares counts near the end of a growing log with those of the log as it
/// will be, and looks for what was counted.
async fn check_numbers(store: &dyn Store, truth: &Truth<'_>, filter: &Filter) {
    let head = store.head(&truth.log.task.id).await.unwrap().unwrap();
    let (number, to) = (head.task.number, head.next_index);
    let positions = [to, to / 2, to.saturating_sub(1_500)];
    let counted = store.count(number, &positions, filter).await.unwrap();
    let expected = positions.map(|position| truth.passed_before[position as usize]);
    assert_eq!(counted, expected, "{positions:?}");
    if let Some(last) = counted[0].checked_sub(1) {
        let found = store.position_of(number, filter, last).await.unwrap();
        let index = found.expect("what was counted should be found") as usize;
        assert!(truth.passes[index] && truth.passed_before[index] == last, "{last} at {index}");
    }
}

/// Compares the text of every series at the end of a growing log with what
/// was published.
async fn check_texts(store: &dyn Store, truth: &Truth<'_>) {
    let head = store.head(&truth.log.task.id).await.unwrap().unwrap();
    for span in store.series_spans(head.task.number, head.next_index).await.unwrap() {
        let snapshot = store.snapshot(&head.task, &span).await.unwrap().unwrap();
        let is_member =
            |index: &u64| truth.series(*index, SeriesMode::Accumulate) == Some(&*span.id);
        let members = (1..=span.last_index).filter(is_member);
        let text = members.map(|index| format!("{}.", index - 1)).collect::<Vec<_>>().concat();
        assert_eq!(snapshot.index, span.last_index);
        let is_whole = snapshot.draft.data.as_str() == format!(r#"{{"text":"{text}"}}"#);
        assert!(is_whole, "{span:?} of {}", head.next_index);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_and_texts_hold_while_blocks_are_being_summed_up() {
    let database = Database::migrated().await;
    let (instance, other) = tokio::join!(Instance::open(&database), Instance::open(&database));
    let mut log = Log::create(&instance).await;
    let published = (0..LONG).map(mixture).collect();
    let future = Log { task: log.task.clone(), published, times: Mutex::default() };
    let filter = types(&["progress"]);
    let truth = Truth::new(&future, &filter);
    let store = &*other.opened.store;
    let growing = async {
        log.grow(&instance, LONG, mixture).await;
        log.await_sums(&database).await;
    };
    let numbers = async {
        loop {
            check_numbers(store, &truth, &filter).await;
        }
    };
    let texts = async {
        loop {
            check_texts(store, &truth).await;
        }
    };
    tokio::select! {
        () = growing => {}
        () = numbers => {}
        () = texts => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sum_that_is_late_is_not_missed() {
    let database = Database::migrated().await;
    let instance = Instance::open(&database).await;
    let mut log = Log::create(&instance).await;
    // Whoever sums up the first blocks waits for this to be taken back.
    let mut connection = database.connect().await;
    let mut in_the_way = connection.begin().await.unwrap();
    sqlx::query("INSERT INTO taskcast.rollup (task, height, ordinal, kinds) VALUES ($1, 1, 0, '')")
        .bind(log.task.number.get().cast_signed())
        .execute(&mut *in_the_way)
        .await
        .unwrap();
    log.grow(&instance, (FAN_OUT + 1) * BLOCK_LEN, mixture).await;
    until("the sum of the first blocks has to wait", || async {
        let statement = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let mut connection = database.connect().await;
        let waiting: i64 = sqlx::query_scalar(statement).fetch_one(&mut connection).await.unwrap();
        (waiting > 0).then_some(())
    })
    .await;
    let filter = types(&["progress"]);
    let truth = Truth::new(&log, &filter);
    let store = &*instance.opened.store;
    check_numbers(store, &truth, &filter).await;
    check_texts(store, &truth).await;
    in_the_way.rollback().await.unwrap();
    log.await_sums(&database).await;
    check_numbers(store, &truth, &filter).await;
    check_texts(store, &truth).await;
}

/// An event whose type no other has.
fn distinct(number: u64) -> taskcast::domain::EventDraft {
    log::draft(&format!("type.{number}"), taskcast::domain::Level::Info, "1")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_in_which_every_event_has_its_own_type_is_summed_up_and_counted() {
    let database = Database::migrated().await;
    let instance = Instance::open(&database).await;
    let mut log = Log::create(&instance).await;
    log.grow(&instance, FAN_OUT * BLOCK_LEN + 100, distinct).await;
    log.await_sums(&database).await;
    let sum: String = until("the blocks have a sum", || async {
        let statement = "SELECT kinds FROM taskcast.rollup WHERE height = 1";
        let mut connection = database.connect().await;
        sqlx::query_scalar(statement).fetch_optional(&mut connection).await.unwrap()
    })
    .await;
    assert!(sum.len() < 1_000, "a sum of too many kinds names none: {} bytes", sum.len());
    let hidden = Filter { include_status: false, ..Filter::default() };
    for filter in [types(&["type.7", "type.30000"]), types(&["type.*"]), types(&["none"]), hidden] {
        let truth = Truth::new(&log, &filter);
        check_numbers(&*instance.opened.store, &truth, &filter).await;
    }
}
