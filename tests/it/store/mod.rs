//! The conformance suite: what it means to be a store.
//!
//! A case takes a fresh store and speaks to its ports alone; no case knows
//! which adapter it has. An adapter that passes all of them is a store. The
//! last test here fails when a port has a method that no case calls.

mod append;
mod bus;
mod cleanup;
mod count;
mod delete;
mod deliveries;
mod journal;
mod keys;
pub mod open;
mod race;
mod read;
mod refusal;
mod snapshot;
mod tasks;

use std::sync::Arc;

use taskcast::domain::{
    Append, AppendRules, Change, Event, EventDraft, Filter, Json, Level, ListQuery, NewTask,
    SeriesMode, SeriesTag, Task, TaskGrant, TaskId, TaskStatus, Transition, TypePattern,
};
use taskcast::store::{Appended, Created, Head, Page, ReadRange, Store, StoreError, TaskRef, View};

/// Longest series text in cases that are not about its limit.
const SERIES_TEXT_LIMIT: u64 = 16 << 20;

fn task_id(text: &str) -> TaskId {
    TaskId::parse(text).unwrap()
}

fn new_task(id: &str) -> NewTask {
    NewTask::new(task_id(id))
}

fn every_task() -> ListQuery {
    ListQuery {
        statuses: Vec::new(),
        types: Vec::new(),
        tags: Vec::new(),
        before: None,
        grant: TaskGrant::Every,
        limit: 100,
        max_bytes: 4 << 20,
    }
}

fn draft(event_type: &str, data: &str) -> EventDraft {
    EventDraft {
        event_type: event_type.into(),
        level: Level::Info,
        data: Json::from_valid(data),
        series: None,
    }
}

fn at_level(level: Level, draft: EventDraft) -> EventDraft {
    EventDraft { level, ..draft }
}

fn in_series(id: &str, mode: SeriesMode, draft: EventDraft) -> EventDraft {
    let tag = SeriesTag { id: id.into(), mode: Some(mode), field: None };
    EventDraft { series: Some(tag), ..draft }
}

fn delta(series: &str, text: &str) -> EventDraft {
    in_series(
        series,
        SeriesMode::Accumulate,
        draft("llm.delta", &format!(r#"{{"text":"{text}"}}"#)),
    )
}

fn latest(series: &str, value: u64) -> EventDraft {
    in_series(series, SeriesMode::Latest, draft("progress", &value.to_string()))
}

fn types(patterns: &[&str]) -> Filter {
    let types = patterns.iter().map(|pattern| TypePattern::parse(pattern).unwrap()).collect();
    Filter { types, ..Filter::default() }
}

fn rules(series_text_limit: u64) -> Arc<AppendRules> {
    Arc::new(AppendRules { series_text_limit, ..AppendRules::default() })
}

fn append_of(id: &TaskId, change: Change) -> Append {
    Append { task: id.clone(), change, rules: rules(SERIES_TEXT_LIMIT), guard: None, key: None }
}

fn publication(id: &TaskId, events: Vec<EventDraft>) -> Append {
    append_of(id, Change::Publish(events))
}

fn step(id: &TaskId, to: TaskStatus) -> Append {
    let transition = Transition { to, result: None, error: None };
    append_of(id, Change::Transition(transition))
}

async fn create(store: &dyn Store, id: &str) -> Task {
    create_as(store, new_task(id)).await
}

async fn create_as(store: &dyn Store, task: NewTask) -> Task {
    match store.create(task, None).await.unwrap() {
        Created::New(task) => *task,
        other => panic!("the id should be free, not {other:?}"),
    }
}

async fn publish(store: &dyn Store, id: &TaskId, events: Vec<EventDraft>) -> Vec<Arc<Event>> {
    accepted(store.append(publication(id, events)).await)
}

async fn enter(store: &dyn Store, id: &TaskId, to: TaskStatus) -> Arc<Event> {
    accepted(store.append(step(id, to)).await).remove(0)
}

fn accepted(appended: Result<Appended, StoreError>) -> Vec<Arc<Event>> {
    let appended = appended.unwrap();
    let told = format!("{appended:?}");
    appended.into_stored().unwrap_or_else(|| panic!("the append should be accepted, not {told}"))
}

/// Deletes the task that has an id now; `false` when there is none.
async fn delete(store: &dyn Store, id: &TaskId) -> bool {
    match store.find(id).await.unwrap() {
        Some(task) => store.delete(&TaskRef::from(&task)).await.unwrap(),
        None => false,
    }
}

async fn head(store: &dyn Store, id: &TaskId) -> Head {
    store.head(id).await.unwrap().expect("the task should have a head")
}

fn range(task: &TaskRef, from: u64, to: u64) -> ReadRange {
    ReadRange {
        task: task.clone(),
        from,
        to,
        view: View::Single,
        max_events: 500,
        max_bytes: 1 << 20,
    }
}

async fn read_one(store: &dyn Store, range: ReadRange) -> Page {
    let mut pages = store.read(&[range]).await.unwrap();
    assert_eq!(pages.len(), 1);
    pages.remove(0)
}

/// Reads a whole log, page by page.
async fn log(store: &dyn Store, id: &TaskId) -> Vec<Arc<Event>> {
    let head = head(store, id).await;
    pages(store, range(&head.task, 0, head.next_index)).await
}

/// Reads a stretch page by page and checks what every page promises.
async fn pages(store: &dyn Store, mut range: ReadRange) -> Vec<Arc<Event>> {
    let mut events: Vec<Arc<Event>> = Vec::new();
    while range.from < range.to {
        let page = read_one(store, range.clone()).await;
        assert!(page.covers_to > range.from, "a page has to get on: {page:?} of {range:?}");
        assert!(page.covers_to <= range.to, "{page:?} of {range:?}");
        assert!(page.events.len() <= range.max_events);
        let indexes: Vec<u64> = page.events.iter().map(|event| event.index).collect();
        assert!(indexes.is_sorted_by(|a, b| a < b), "{indexes:?}");
        assert!(indexes.iter().all(|index| (range.from..page.covers_to).contains(index)));
        events.extend(page.events);
        range.from = page.covers_to;
    }
    events
}

fn indexes(events: &[Arc<Event>]) -> Vec<u64> {
    events.iter().map(|event| event.index).collect()
}

fn payloads(events: &[Arc<Event>]) -> Vec<&str> {
    events.iter().map(|event| event.draft.data.as_str()).collect()
}

#[test]
fn every_method_of_a_port_is_called_by_a_case() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let cases: String = std::fs::read_dir(root.join("tests/it/store"))
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    let mut checked = 0;
    for port in ["tasks", "events", "deliveries", "cleanup", "bus"] {
        let source = std::fs::read_to_string(root.join(format!("src/store/{port}.rs"))).unwrap();
        let (_, definition) =
            source.split_once("pub trait ").expect("the file should define a port");
        let (definition, _) = definition.split_once("\n}").unwrap();
        for line in definition.lines().map(str::trim) {
            let Some(rest) = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "))
            else {
                continue;
            };
            let name: String =
                rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            assert!(cases.contains(&format!(".{name}(")), "no case calls {port}.{name}");
            checked += 1;
        }
    }
    assert!(checked >= 15, "only {checked} methods were found");
}
