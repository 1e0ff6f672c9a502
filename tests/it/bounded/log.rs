//! A task that grows old, and the instance it lives on.

use std::sync::{Arc, Mutex};

use taskcast::dispatcher::{
    Dispatcher, DispatcherOptions, Entry, Item, OpenedStream, StreamRequest,
};
use taskcast::domain::{
    Append, AppendRules, BLOCK_LEN, Change, Cursor, EventDraft, EventId, Filter, Json, Level,
    NewTask, SeriesMode, SeriesTag, TaskId, TaskStatus, Transition, TypePattern,
};
use taskcast::store::postgres::PostgresOptions;
use taskcast::store::{self, Created, Opened, StorageOptions, TaskRef};
use taskcast::supervisor::Supervisor;

use crate::support::postgres::Database;
use crate::support::until;

/// Long enough for two sums of blocks, blocks past them, and an open end.
pub(super) const LONG: u64 = 70_000;

/// Events of one request.
const REQUEST: u64 = 1_000;

/// A store with a dispatcher, as in a server.
pub(super) struct Instance {
    pub(super) opened: Opened,
    dispatcher: Arc<Dispatcher>,
    supervisor: Supervisor,
}

impl Instance {
    pub(super) async fn open(database: &Database) -> Self {
        let supervisor = Supervisor::new();
        let dispatcher = Dispatcher::new(DispatcherOptions::default());
        let storage = StorageOptions::Postgres(PostgresOptions::new(database.url()));
        let opened = store::open(storage, dispatcher.clone(), &supervisor).await.unwrap();
        dispatcher.attach(opened.store.clone(), opened.bus.clone());
        Self { opened, dispatcher, supervisor }
    }

    pub(super) async fn close(self) {
        (self.opened.closer)().await;
        self.supervisor.stop().await;
    }

    /// Reads a stream until it has caught up.
    pub(super) async fn read(&self, request: StreamRequest) -> Vec<Entry> {
        let opened = self.dispatcher.subscribe(request).await.unwrap();
        let Some(OpenedStream::Stream(mut stream)) = opened else { panic!("no stream") };
        let mut entries = Vec::new();
        loop {
            let batch = stream.read().await.unwrap();
            entries.extend(batch.items.into_iter().map(|item| match item {
                Item::Event(entry) => entry,
                other => panic!("{other:?} came instead of an event"),
            }));
            if batch.is_caught_up {
                return entries;
            }
        }
    }
}

/// A running task, and everything published to it: number n has index n + 1,
/// after the status event.
pub(super) struct Log {
    pub(super) task: TaskRef,
    pub(super) published: Vec<EventDraft>,
    /// When each event was stored, by index.
    pub(super) times: Mutex<Vec<u64>>,
}

impl Log {
    pub(super) async fn create(instance: &Instance) -> Self {
        let task = NewTask::new(TaskId::parse("old").unwrap());
        let created = instance.opened.store.create(task, None).await.unwrap();
        let Created::New(task) = created else { panic!("the id should be free") };
        let task = TaskRef { id: task.spec.id, number: task.number };
        let log = Self { task, published: Vec::new(), times: Mutex::default() };
        let start = Transition { to: TaskStatus::Running, result: None, error: None };
        log.append(instance, Change::Transition(start)).await;
        log
    }

    pub(super) async fn append(&self, instance: &Instance, change: Change) {
        let rules = AppendRules { series_text_limit: 16 << 20, ..AppendRules::default() };
        let (task, rules) = (self.task.id.clone(), Arc::new(rules));
        let append = Append { task, change, rules, guard: None, key: None };
        let appended = instance.opened.store.append(append).await.unwrap();
        let stored = appended.into_stored().expect("it is stored");
        self.times.lock().unwrap().extend(stored.iter().map(|event| event.timestamp_ms));
    }

    /// Publishes what `event` makes of each number until the log is `length` long.
    pub(super) async fn grow(
        &mut self,
        instance: &Instance,
        length: u64,
        event: fn(u64) -> EventDraft,
    ) {
        while self.length() < length {
            let first = self.published.len() as u64;
            let events: Vec<_> =
                (first..first + REQUEST.min(length - self.length())).map(event).collect();
            self.published.extend_from_slice(&events);
            self.append(instance, Change::Publish(events)).await;
        }
    }

    pub(super) fn length(&self) -> u64 {
        self.published.len() as u64 + 1
    }

    /// Waits until every full block is summed up and superseded events are gone.
    pub(super) async fn await_sums(&self, database: &Database) {
        let blocks = (self.length() / BLOCK_LEN).cast_signed();
        until("every full block is summed up", || async {
            let statement = "SELECT count(*) FROM taskcast.rollup WHERE task = $1 AND height = 0";
            let mut connection = database.connect().await;
            let found: i64 = sqlx::query_scalar(statement)
                .bind(self.task.number.get().cast_signed())
                .fetch_one(&mut connection)
                .await
                .unwrap();
            let pending = "SELECT count(*) FROM taskcast.removal";
            let pending: i64 =
                sqlx::query_scalar(pending).fetch_one(&mut connection).await.unwrap();
            (found == blocks && pending == 0).then_some(())
        })
        .await;
    }

    pub(super) fn request(&self, filter: &Filter, cursor: Cursor) -> StreamRequest {
        StreamRequest {
            task: self.task.id.clone(),
            filter: filter.clone(),
            last_event_id: None,
            cursor,
            limit: None,
            accumulated: false,
            guard: None,
        }
    }

    /// Returns the id of an event.
    pub(super) fn id(&self, index: u64) -> String {
        let time = self.times.lock().unwrap()[usize::try_from(index).unwrap()];
        EventId::new(time, self.task.number, index).to_string()
    }

    pub(super) fn after(&self, index: u64) -> Cursor {
        Cursor { ids: vec![self.id(index)], ..Cursor::default() }
    }
}

pub(super) fn draft(event_type: &str, level: Level, data: &str) -> EventDraft {
    EventDraft { event_type: event_type.into(), level, data: Json::from_valid(data), series: None }
}

pub(super) fn in_series(id: &str, mode: SeriesMode, draft: EventDraft) -> EventDraft {
    let tag = SeriesTag { id: id.into(), mode: Some(mode), field: None };
    EventDraft { series: Some(tag), ..draft }
}

pub(super) fn delta(series: &str, event_type: &str, number: u64) -> EventDraft {
    let data = format!(r#"{{"text":"{number}."}}"#);
    in_series(series, SeriesMode::Accumulate, draft(event_type, Level::Info, &data))
}

pub(super) fn latest(series: &str, level: Level, number: u64) -> EventDraft {
    in_series(series, SeriesMode::Latest, draft("progress", level, &number.to_string()))
}

/// An event of one long `accumulate` series.
pub(super) fn answer(number: u64) -> EventDraft {
    delta("answer", "llm.delta", number)
}

/// An event of a log with some of everything. What is left of it is little:
/// most events are replaced, some of them long after they were published.
pub(super) fn mixture(number: u64) -> EventDraft {
    let data = number.to_string();
    match (number % 32, number % 4_999) {
        (_, 77) => latest("rare", Level::Error, number),
        (_, 100) => draft("note", Level::Warn, &data),
        (_, 200) => in_series("kept", SeriesMode::KeepAll, draft("llm.kept", Level::Debug, &data)),
        (0..=8, _) => delta("a", "llm.delta", number),
        (9 | 10, _) => delta("b", "note.part", number),
        (11..=20, _) => latest("l", Level::Info, number),
        _ => latest(["m", "n"][(number % 2) as usize], Level::Debug, number),
    }
}

pub(super) fn types(patterns: &[&str]) -> Filter {
    let types = patterns.iter().map(|pattern| TypePattern::parse(pattern).unwrap()).collect();
    Filter { types, ..Filter::default() }
}

pub(super) fn filters() -> Vec<Filter> {
    vec![
        Filter::default(),
        Filter { include_status: false, ..Filter::default() },
        types(&["llm.*"]),
        types(&["progress", "note"]),
        types(&["note.*", "taskcast:status"]),
        Filter { levels: vec![Level::Warn, Level::Error], ..Filter::default() },
        Filter { levels: vec![Level::Debug], ..types(&["progress", "llm.kept"]) },
    ]
}
