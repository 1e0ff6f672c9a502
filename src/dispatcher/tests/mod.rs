//! Interleavings of readers and writers, explored.
//!
//! Shuttle runs these scenarios again and again, and at every lock, every wait
//! and every question to the store it picks anew who goes on. What runs is the
//! dispatcher itself; only its lock is exchanged (see `lock`), and its poll is
//! left out, so that a wake that gets lost leaves a reader waiting for ever,
//! which ends the run as a deadlock. A failure prints its schedule.
//!
//! `TASKCAST_TEST_SCHEDULES` says how many schedules to try for each scenario.

mod rig;
mod shelf;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures_util::future::join_all;
use shuttle::future::{block_on, spawn};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner};

use self::rig::{Got, Rig, Writer, enter, events};
use self::shelf::Shelf;
use super::topic::{Tail, Topic};
use super::{DispatcherOptions, FeedReader, FeedRequest};
use crate::domain::{TaskId, TaskNumber, TaskStatus};
use crate::store::{Events as _, TaskRef, Wake};

/// Schedules tried for each scenario, unless the environment says otherwise.
const SCHEDULES: usize = 1_000;

/// Points at which a schedule of the second kind takes a turn for the worse.
const DEPTH: usize = 3;

fn schedules() -> usize {
    #[expect(clippy::disallowed_methods, reason = "the rule is for the program, not for its tests")]
    let wanted = std::env::var("TASKCAST_TEST_SCHEDULES").ok();
    wanted.map_or(SCHEDULES, |wanted| wanted.parse().expect("a number of schedules"))
}

/// Runs a scenario under many schedules: half of them random, the other half
/// with few but hard preemptions.
fn explore<F>(scenario: impl Fn() -> F + Send + Sync + Copy + 'static)
where
    F: Future<Output = ()> + 'static,
{
    let half = schedules().div_ceil(2);
    run(RandomScheduler::new(half), scenario);
    run(PctScheduler::new(DEPTH, half), scenario);
}

fn run<F>(scheduler: impl Scheduler + 'static, scenario: impl Fn() -> F + Send + Sync + 'static)
where
    F: Future<Output = ()> + 'static,
{
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    Runner::new(scheduler, config).run(move || block_on(scenario()));
}

/// Starts a writer that publishes, ends the task and is done.
async fn publish_and_end(rig: Arc<Rig>, writers: [Writer; 3]) {
    for writer in writers {
        rig.write(writer, events(2)).await;
    }
    rig.write(writers[0], enter(TaskStatus::Completed)).await;
}

/// Checks that a stream was the whole log: every event once, in order, and
/// then its end.
fn check_whole(got: &Got, events: u64) {
    assert_eq!(got.indexes, (0..events).collect::<Vec<_>>());
    assert_eq!(got.end, Some(TaskStatus::Completed));
}

/// Lets readers come at any moment of a task's life.
async fn readers_come_and_go(shelf: Shelf, ring_events: usize, writers: [Writer; 3]) -> Arc<Rig> {
    let rig = Rig::new(ring_events, shelf).await;
    rig.write(Writer::Here, enter(TaskStatus::Running)).await;
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let rig = rig.clone();
            spawn(async move { rig.read(None, usize::MAX).await })
        })
        .collect();
    let writer = spawn(publish_and_end(rig.clone(), writers));
    for got in join_all(readers).await {
        check_whole(&got.unwrap(), 8);
    }
    writer.await.unwrap();
    rig
}

/// Lets a reader come at any moment round the last event of all.
async fn a_reader_comes_while_the_task_ends(shelf: Shelf) {
    let rig = Rig::new(256, shelf).await;
    rig.write(Writer::Here, enter(TaskStatus::Running)).await;
    let reader = spawn({
        let rig = rig.clone();
        async move { rig.read(None, usize::MAX).await }
    });
    rig.write(Writer::Here, enter(TaskStatus::Completed)).await;
    check_whole(&reader.await.unwrap(), 2);
}

#[test]
fn a_reader_that_comes_while_the_task_ends_sees_the_end() {
    explore(|| a_reader_comes_while_the_task_ends(Shelf::new()));
}

#[test]
fn a_reader_that_comes_at_any_moment_sees_every_event_once() {
    explore(async || {
        let rig = readers_come_and_go(Shelf::new(), 256, [Writer::Here; 3]).await;
        assert_eq!(rig.dispatcher.reader_count(rig.task.number), 0);
        assert!(rig.dispatcher.topics.lock().is_empty(), "a topic nobody watches is let go");
    });
}

#[test]
fn events_of_other_instances_come_between_our_own_in_order() {
    explore(async || {
        let writers = [Writer::Here, Writer::Elsewhere, Writer::Here];
        readers_come_and_go(Shelf::new(), 256, writers).await;
        let writers = [Writer::Elsewhere, Writer::Here, Writer::Elsewhere];
        readers_come_and_go(Shelf::new(), 256, writers).await;
    });
}

#[test]
fn a_reader_that_the_ring_has_lapped_goes_on_from_the_store() {
    static LAPPED: AtomicUsize = AtomicUsize::new(0);
    explore(async || {
        let rig = readers_come_and_go(Shelf::new(), 1, [Writer::Here; 3]).await;
        LAPPED.fetch_add(rig.shelf.single_reads.load(Ordering::Relaxed), Ordering::Relaxed);
    });
    // Whether it comes to that is up to the schedule; of so many some must.
    assert!(LAPPED.load(Ordering::Relaxed) > 0, "no reader was ever lapped");
}

#[test]
fn a_full_look_makes_up_for_every_wake_that_was_lost() {
    explore(async || {
        let rig = Rig::new(256, Shelf::new()).await;
        let reader = spawn({
            let rig = rig.clone();
            async move { rig.read(None, usize::MAX).await }
        });
        for change in [enter(TaskStatus::Running), events(3), enter(TaskStatus::Completed)] {
            rig.store(change).await;
        }
        rig.wakes.send(Wake::Rescan);
        check_whole(&reader.await.unwrap(), 5);
    });
}

#[test]
fn a_reader_that_is_cut_at_any_moment_resumes_without_a_seam() {
    explore(async || {
        let rig = Rig::new(3, Shelf::new()).await;
        rig.write(Writer::Here, enter(TaskStatus::Running)).await;
        let reader = spawn({
            let rig = rig.clone();
            async move {
                let mut got = rig.read(None, 3).await;
                while got.end.is_none() {
                    let more = rig.read(got.last_event_id.clone(), 2).await;
                    if more == Got::default() {
                        // It was cut between the last event and the end.
                        got.end = Some(TaskStatus::Completed);
                        break;
                    }
                    got.indexes.extend(more.indexes);
                    got.last_event_id = more.last_event_id.or(got.last_event_id);
                    got.end = more.end;
                }
                got
            }
        });
        let writers = [Writer::Here, Writer::Elsewhere, Writer::Here];
        let writer = spawn(publish_and_end(rig.clone(), writers));
        check_whole(&reader.await.unwrap(), 8);
        writer.await.unwrap();
    });
}

#[test]
fn a_deletion_at_any_moment_ends_every_stream() {
    explore(async || {
        let rig = Rig::new(256, Shelf::new()).await;
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let rig = rig.clone();
                spawn(async move { rig.read(None, usize::MAX).await })
            })
            .collect();
        rig.write(Writer::Here, events(2)).await;
        rig.write(Writer::Here, events(1)).await;
        rig.delete().await;
        for got in join_all(readers).await {
            let Got { indexes, end, .. } = got.unwrap();
            assert_eq!(indexes, (0..indexes.len() as u64).collect::<Vec<_>>());
            assert_eq!(end, None);
        }
    });
}

#[test]
fn a_reader_of_all_tasks_sees_what_follows_its_coming() {
    explore(async || {
        let rig = Rig::new(256, Shelf::new()).await;
        rig.write(Writer::Here, events(2)).await;
        let writer = spawn({
            let rig = rig.clone();
            async move {
                for writer in [Writer::Here, Writer::Elsewhere, Writer::Here] {
                    rig.write(writer, events(2)).await;
                }
            }
        });
        let before = rig.head().await;
        let mut reader = rig.dispatcher.subscribe_all(FeedRequest::default()).await.unwrap();
        let after = rig.head().await;
        let mut seen = Vec::new();
        writer.await.unwrap();
        rig.write(Writer::Here, events(1)).await;
        read_feed(&mut reader, &mut seen, 9).await;
        assert!((before..=after).contains(&seen[0]), "{seen:?} came in {before}..={after}");
        assert_eq!(seen, (seen[0]..9).collect::<Vec<_>>());
    });
}

/// Reads up to the event before index `to`.
async fn read_feed(reader: &mut FeedReader, seen: &mut Vec<u64>, to: u64) {
    loop {
        for item in reader.read(usize::MAX).unwrap() {
            assert_eq!(item.filtered_index, seen.len() as u64);
            seen.push(item.slot.event.index);
        }
        if seen.last().is_some_and(|last| last + 1 == to) {
            return;
        }
        reader.wait().await;
    }
}

// The other way round: what must not be done, done. That these fail shows that
// the scenarios above would notice.

#[test]
#[should_panic(expected = "deadlock")]
fn reading_before_registering_loses_what_happens_in_between() {
    explore(|| a_reader_comes_while_the_task_ends(Shelf::read_too_early()));
}

/// Follows a topic of four events, two writes of two, to its end.
async fn follow(watches_before_reading: bool) {
    let number = TaskNumber::new(1).unwrap();
    let task = TaskRef { id: TaskId::parse(rig::TASK).unwrap(), number };
    let rig = Rig::new(256, Shelf::new()).await;
    let topic = Topic::new(task);
    topic.place(&rig.shelf.memory.head(&rig.task.id).await.unwrap().unwrap());
    let writer = spawn({
        let (rig, topic) = (rig.clone(), topic.clone());
        async move {
            for _ in 0..2 {
                let written = rig.store(events(2)).await;
                topic.extend(&written, Instant::now(), &DispatcherOptions::default());
            }
        }
    });
    let (mut cursor, mut moved) = (0, topic.watch());
    while cursor < 4 {
        if watches_before_reading {
            moved.mark_unchanged();
        }
        if let Tail::Events(slots, next) = topic.tail(cursor, usize::MAX) {
            assert!(slots.iter().map(|slot| slot.event.index).eq(cursor..next));
            cursor = next;
            continue;
        }
        if !watches_before_reading {
            moved.mark_unchanged();
        }
        moved.changed().await.unwrap();
    }
    writer.await.unwrap();
}

#[test]
fn a_topic_wakes_whoever_watches_before_reading() {
    explore(|| follow(true));
}

#[test]
#[should_panic(expected = "deadlock")]
fn watching_after_reading_loses_a_wake() {
    explore(|| follow(false));
}
