//! The store in this process: the readable reference.
//!
//! One lock, plain maps; every port method is a few lines under the lock.
//! Everything is gone with the process. Room is bounded: when it runs out
//! the oldest finished tasks go first, then writes are refused.

mod cleanup;
mod deliveries;
mod events;
mod log;
mod outbox;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use self::cleanup::Due;
use self::deliveries::{Debt, DeliverySpot};
use self::log::Log;
use self::outbox::Outbox;
use super::clock::now_ms;
use super::{
    Commit, CommitListener, Created, JournalEntry, Report, StoreError, StorePart, TaskRef, Tasks,
};
use crate::domain::{
    IdempotencyKey, ListQuery, NewTask, Task, TaskId, TaskNumber, TaskPage, TaskPolicy, TaskState,
    TaskStatus,
};

/// Journal entries kept for readers that lag behind.
const JOURNAL_LEN: usize = 65_536;

/// Tasks a list looks at before it returns a short page, and while it keeps
/// writers waiting.
const LIST_EFFORT: usize = 10_000;
const LIST_CHUNK: usize = 256;

/// What a task takes up in the maps, apart from itself.
const RECORD_BYTES: usize = 768;

/// Share of the room that idempotency keys may take up. It is theirs alone:
/// keys drop older keys, never tasks.
const KEY_SHARE: usize = 8;

/// Keeps tasks and events in this process.
pub struct MemoryStore {
    state: Mutex<State>,
    /// For tasks and what they own.
    max_bytes: usize,
    max_keys: usize,
    listener: Arc<dyn CommitListener>,
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").field("max_bytes", &self.max_bytes).finish_non_exhaustive()
    }
}

/// A task with its log.
struct Record {
    task: Task,
    state: TaskState,
    log: Log,
    last_timestamp_ms: u64,
    /// What is owed to webhooks, by event and hook.
    debts: BTreeMap<DeliverySpot, Debt>,
    /// What each part takes up.
    task_bytes: usize,
    policy_bytes: usize,
    series_bytes: usize,
    debt_bytes: usize,
}

impl Record {
    fn size_bytes(&self) -> usize {
        RECORD_BYTES
            + self.task_bytes
            + self.policy_bytes
            + self.log.size_bytes()
            + self.series_bytes
            + self.debt_bytes
    }

    fn task_ref(&self) -> TaskRef {
        TaskRef { id: self.task.spec.id.clone(), number: self.task.number }
    }
}

/// What a list has found so far.
#[derive(Default)]
struct Listed {
    page: TaskPage,
    bytes: usize,
}

#[derive(Default)]
struct State {
    records: BTreeMap<TaskNumber, Record>,
    numbers: HashMap<TaskId, TaskNumber>,
    /// Unfinished tasks by deadline.
    deadlines: BTreeSet<(u64, TaskNumber)>,
    /// Finished tasks by when they finished: the first to go.
    finished: BTreeSet<(u64, TaskNumber)>,
    last_number: u64,
    bytes: usize,
    journal: VecDeque<JournalEntry>,
    journal_sequence: u64,
    /// Pending deliveries in the order they are sent.
    outbox: Outbox,
    /// Finished tasks not yet looked at by the rules of `swept_for`.
    unswept: BTreeSet<TaskNumber>,
    /// Digest of the rules that looked last; 0 for none.
    swept_for: u64,
    /// What rules will do, by when, with where in the log they go on.
    cleanup: BTreeMap<Due, u64>,
    /// Who carries rules out, and until when.
    leader: Option<(u64, u64)>,
    /// What requests with a key did.
    keys: HashMap<[u8; 32], KeyRecord>,
    /// Keys by age.
    key_ages: VecDeque<(u64, [u8; 32])>,
}

/// What a request with a key did.
#[derive(Debug, Clone)]
struct KeyRecord {
    request: [u8; 32],
    number: TaskNumber,
    /// For a creation: the id the task got.
    task: Option<TaskId>,
    first_index: u64,
    at_ms: u64,
}

/// What a key takes up at most, the id of the task it created included.
const KEY_BYTES: usize = 384;

impl State {
    fn record(&self, id: &TaskId) -> Option<&Record> {
        self.records.get(self.numbers.get(id)?)
    }

    fn deadline_of(task: &Task) -> Option<u64> {
        task.spec.ttl_seconds.map(|ttl| task.created_at_ms.saturating_add(ttl * 1000))
    }

    fn remove(&mut self, number: TaskNumber) -> Option<Commit> {
        let record = self.records.remove(&number)?;
        self.numbers.remove(&record.task.spec.id);
        if let Some(deadline) = Self::deadline_of(&record.task) {
            self.deadlines.remove(&(deadline, number));
        }
        if let Some(completed_at) = record.task.completed_at_ms {
            self.finished.remove(&(completed_at, number));
        }
        self.unswept.remove(&number);
        for ((index, hook), debt) in &record.debts {
            self.outbox.remove(debt.receiver(), debt.entry(number, *index, hook));
        }
        self.bytes -= record.size_bytes();
        let task = record.task_ref();
        Some(Commit::of_deletion(task))
    }

    /// Remembers what a request with a key did, and forgets the oldest keys
    /// beyond `most`.
    fn remember_key(&mut self, key: Option<IdempotencyKey>, did: KeyRecord, most: usize) {
        let Some(key) = key else { return };
        self.key_ages.push_back((did.at_ms, key.key));
        self.keys.insert(key.key, KeyRecord { request: key.request, ..did });
        while self.key_ages.len() > most {
            self.forget_oldest_key();
        }
    }

    fn forget_oldest_key(&mut self) {
        if let Some((_, key)) = self.key_ages.pop_front() {
            self.keys.remove(&key);
        }
    }

    /// Returns what an earlier request with this key did, if there was one.
    fn known_key(&self, key: Option<IdempotencyKey>) -> Option<(IdempotencyKey, &KeyRecord)> {
        let key = key?;
        Some((key, self.keys.get(&key.key)?))
    }

    fn note(&mut self, number: TaskNumber, from: u64, next_index: u64) {
        self.journal_sequence += 1;
        let sequence = self.journal_sequence;
        self.journal.push_back(JournalEntry { source: 0, sequence, number, from, next_index });
        if self.journal.len() > JOURNAL_LEN {
            self.journal.pop_front();
        }
    }
}

impl MemoryStore {
    /// Makes an empty store that holds up to `max_bytes` and reports to `listener`.
    pub fn new(max_bytes: usize, listener: Arc<dyn CommitListener>) -> Self {
        // Numbers start anywhere, so that an id from before a restart names
        // nothing instead of another task.
        let state = State { last_number: u64::from(rand::random::<u32>()), ..State::default() };
        let for_keys = max_bytes / KEY_SHARE;
        let (max_bytes, max_keys) = (max_bytes - for_keys, for_keys / KEY_BYTES);
        Self { state: Mutex::new(state), max_bytes, max_keys, listener }
    }

    /// Makes room for `needed` bytes; `spare` is the task they are for.
    ///
    /// What has to go is gone for its readers as well, also when it was not
    /// enough.
    fn make_room(
        &self,
        state: &mut State,
        needed: usize,
        spare: Option<TaskNumber>,
    ) -> Result<(), StoreError> {
        while state.bytes + needed > self.max_bytes {
            if !self.evict_oldest(state, spare) {
                self.listener.reported(&Report::Failed(StorePart::Writer, &StoreError::Full));
                return Err(StoreError::Full);
            }
        }
        Ok(())
    }

    /// Drops finished tasks while there is too much; `spare` stays.
    fn trim(&self, state: &mut State, spare: TaskNumber) {
        while state.bytes > self.max_bytes && self.evict_oldest(state, Some(spare)) {}
    }

    /// Drops the task that finished longest ago; `false` when none has.
    fn evict_oldest(&self, state: &mut State, spare: Option<TaskNumber>) -> bool {
        let mut finished = state.finished.iter().map(|(_, number)| *number);
        let Some(oldest) = finished.find(|number| Some(*number) != spare) else { return false };
        let events = state.records.get(&oldest).map_or(0, |record| record.state.next_index);
        let gone = state.remove(oldest);
        self.listener.committed(gone.as_slice());
        if let Some(commit) = &gone {
            self.listener.reported(&Report::Evicted(&commit.task, events));
        }
        true
    }

    /// Adds what a list looks for among the next tasks below `below`; `true`
    /// when the page is full or the tasks are at their end.
    fn list_chunk(&self, query: &ListQuery, below: &mut u64, found: &mut Listed) -> bool {
        let state = self.state.lock();
        let below_now = TaskNumber::new(*below).unwrap_or(TaskNumber::MAX);
        let mut older = state.records.range(..below_now).rev();
        for (number, record) in older.by_ref().take(LIST_CHUNK) {
            let is_full = found.page.tasks.len() >= query.limit
                || (found.bytes > 0 && found.bytes + record.task_bytes > query.max_bytes);
            if is_full {
                // The next page goes on below the last task this one decided on.
                found.page.next = TaskNumber::new(number.get() + 1);
                return true;
            }
            if query.admits(&record.task) {
                found.bytes += record.task_bytes;
                found.page.tasks.push(record.task.clone());
            }
            *below = number.get();
        }
        older.next().is_none()
    }
}

#[async_trait]
impl Tasks for MemoryStore {
    async fn create(
        &self,
        spec: NewTask,
        key: Option<IdempotencyKey>,
    ) -> Result<Created, StoreError> {
        let mut state = self.state.lock();
        if let Some((key, did)) = state.known_key(key) {
            return Ok(repeat_create(spec, key, did));
        }
        if state.numbers.contains_key(&spec.id) {
            return Ok(Created::Exists);
        }
        let now = now_ms();
        let number = TaskNumber::new(state.last_number + 1)
            .ok_or_else(|| StoreError::Unexpected("task numbers are used up".into()))?;
        let task = new_task(spec, number, now);
        let (task_bytes, policy_bytes) = (task.size_bytes(), task.spec.policy_bytes());
        self.make_room(&mut state, RECORD_BYTES + task_bytes + policy_bytes, None)?;
        state.last_number = number.get();
        state.numbers.insert(task.spec.id.clone(), number);
        if let Some(deadline) = State::deadline_of(&task) {
            state.deadlines.insert((deadline, number));
        }
        let id = Some(task.spec.id.clone());
        let did = KeyRecord { request: [0; 32], number, task: id, first_index: 0, at_ms: now };
        state.remember_key(key, did, self.max_keys);
        let policy = TaskPolicy {
            task_type: task.spec.task_type.clone(),
            auth_config: task.spec.auth_config.clone(),
            webhooks: task.spec.webhooks.clone().unwrap_or_default(),
        };
        let judged = TaskState {
            policy: Arc::new(policy),
            status: task.status,
            next_index: 0,
            series: HashMap::new(),
        };
        let record = Record {
            task: task.clone(),
            state: judged,
            log: Log::default(),
            last_timestamp_ms: 0,
            debts: BTreeMap::new(),
            task_bytes,
            policy_bytes,
            series_bytes: 0,
            debt_bytes: 0,
        };
        state.bytes += record.size_bytes();
        state.records.insert(number, record);
        self.listener.created(&task);
        Ok(Created::New(Box::new(task)))
    }

    async fn find(&self, id: &TaskId) -> Result<Option<Task>, StoreError> {
        Ok(self.state.lock().record(id).map(|record| record.task.clone()))
    }

    async fn list(&self, query: &ListQuery) -> Result<TaskPage, StoreError> {
        let mut found = Listed::default();
        let mut below = query.before.map_or(u64::MAX, TaskNumber::get);
        for _ in 0..LIST_EFFORT / LIST_CHUNK {
            if self.list_chunk(query, &mut below, &mut found) {
                return Ok(found.page);
            }
            // Writers get their turn.
            tokio::task::yield_now().await;
        }
        found.page.next = TaskNumber::new(below);
        Ok(found.page)
    }

    async fn delete(&self, task: &TaskRef) -> Result<bool, StoreError> {
        let mut state = self.state.lock();
        let removed = state.remove(task.number);
        self.listener.committed(removed.as_slice());
        Ok(removed.is_some())
    }

    async fn overdue(&self, limit: usize) -> Result<Vec<TaskId>, StoreError> {
        let state = self.state.lock();
        let now = now_ms();
        let due = state.deadlines.iter().take_while(|(deadline, _)| *deadline <= now).take(limit);
        Ok(due
            .filter_map(|(_, number)| Some(state.records.get(number)?.task.spec.id.clone()))
            .collect())
    }

    async fn check_writable(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn purge(&self, _limit: usize) -> Result<usize, StoreError> {
        // Deleting takes everything with it at once.
        Ok(0)
    }
}

/// Returns a task as it is at its creation.
fn new_task(spec: NewTask, number: TaskNumber, now_ms: u64) -> Task {
    Task {
        spec,
        number,
        status: TaskStatus::Pending,
        result: None,
        error: None,
        created_at_ms: now_ms,
        updated_at_ms: now_ms,
        completed_at_ms: None,
    }
}

/// Answers a creation whose key is known.
fn repeat_create(spec: NewTask, key: IdempotencyKey, did: &KeyRecord) -> Created {
    match &did.task {
        Some(id) if did.request == key.request => {
            let spec = NewTask { id: id.clone(), ..spec };
            Created::Replayed(Box::new(new_task(spec, did.number, did.at_ms)))
        }
        Some(_) | None => Created::KeyConflict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        Append, AppendRules, Change, EventDraft, Json, Level, SeriesMode, Transition,
    };
    use crate::store::{Appended, Events as _};

    /// Remembers which tasks were said to be gone.
    #[derive(Default)]
    struct Gone(Mutex<Vec<String>>);

    impl CommitListener for Gone {
        fn committed(&self, commits: &[Commit]) {
            let deleted = commits.iter().filter(|commit| commit.deleted);
            self.0.lock().extend(deleted.map(|commit| commit.task.id.to_string()));
        }
    }

    async fn create(store: &MemoryStore, id: &str) {
        let spec = NewTask::new(TaskId::parse(id).unwrap());
        assert!(matches!(store.create(spec, None).await, Ok(Created::New(_))));
    }

    async fn append(store: &MemoryStore, id: &str, change: Change) -> Result<Appended, StoreError> {
        let task = TaskId::parse(id).unwrap();
        let rules = AppendRules { series_text_limit: u64::MAX, ..AppendRules::default() };
        store.append(Append { task, change, rules: Arc::new(rules), guard: None, key: None }).await
    }

    fn event_of(bytes: usize) -> Change {
        Change::Publish(vec![EventDraft {
            event_type: "a".into(),
            level: Level::Info,
            data: Json::from_valid(&format!("\"{}\"", "x".repeat(bytes))),
            series: None,
        }])
    }

    #[tokio::test]
    async fn the_oldest_finished_task_makes_room_and_unfinished_ones_never_do() {
        let gone = Arc::new(Gone::default());
        let store = MemoryStore::new(100_000, gone.clone());
        for id in ["first", "second", "third"] {
            create(&store, id).await;
            append(&store, id, event_of(10_000)).await.unwrap();
        }
        for id in ["second", "first"] {
            let end = Transition { to: TaskStatus::Cancelled, result: None, error: None };
            append(&store, id, Change::Transition(end)).await.unwrap();
            // In different milliseconds, so that their order is known.
            let ended = now_ms();
            while now_ms() == ended {
                tokio::task::yield_now().await;
            }
        }
        append(&store, "third", event_of(20_000)).await.unwrap();
        assert_eq!(*gone.0.lock(), ["second"]);
        let too_much = append(&store, "third", event_of(60_000)).await;
        assert!(matches!(too_much, Err(StoreError::Full)));
        assert_eq!(*gone.0.lock(), ["second", "first"], "who went is told of in any case");
        let head = store.head(&TaskId::parse("third").unwrap()).await.unwrap().unwrap();
        assert_eq!(head.next_index, 2, "a refused write leaves nothing behind");
    }
    #[tokio::test]
    async fn keys_drop_older_keys_and_never_tasks() {
        let gone = Arc::new(Gone::default());
        let store = MemoryStore::new(100_000, gone.clone());
        create(&store, "finished").await;
        let end = Transition { to: TaskStatus::Cancelled, result: None, error: None };
        append(&store, "finished", Change::Transition(end)).await.unwrap();
        let key = |n: u32| {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&n.to_be_bytes());
            Some(IdempotencyKey { key, request: [7; 32] })
        };
        for n in 0..2_000 {
            let spec = NewTask::new(TaskId::parse("short-lived").unwrap());
            let created = store.create(spec, key(n)).await;
            let Ok(Created::New(task)) = created else { panic!("{n}: {created:?}") };
            assert!(store.delete(&(&*task).into()).await.unwrap());
        }
        let repeat = |n| store.create(NewTask::new(TaskId::parse("repeat").unwrap()), key(n));
        assert!(matches!(repeat(1_999).await, Ok(Created::Replayed(_))), "new keys are known");
        assert!(matches!(repeat(0).await, Ok(Created::New(_))), "old ones are forgotten");
        assert!(store.find(&TaskId::parse("finished").unwrap()).await.unwrap().is_some());
        assert!(!gone.0.lock().contains(&"finished".to_owned()));
    }

    /// Publishes until the store is full; returns how many times.
    async fn fill(store: &MemoryStore, event: impl Fn(usize) -> EventDraft) -> usize {
        create(store, "t").await;
        for n in 0.. {
            match append(store, "t", Change::Publish(vec![event(n)])).await {
                Ok(_) => {}
                Err(StoreError::Full) => return n,
                Err(error) => panic!("{error}"),
            }
        }
        0
    }

    #[tokio::test]
    async fn all_text_of_events_and_series_counts_as_memory() {
        const ROOM: usize = 1 << 20;
        let long = |n: usize| format!("{n}.{}", "x".repeat(240));
        let draft = |event_type: &str| EventDraft::new(event_type, Json::null()).unwrap();
        let empty = || MemoryStore::new(ROOM, Arc::new(Gone::default()));
        let typed = fill(&empty(), |n| draft(&long(n))).await;
        let in_series = |n| draft("a").in_series(&long(n), SeriesMode::Latest);
        let named = fill(&empty(), in_series).await;
        for (what, events) in [("types", typed), ("series", named)] {
            // Each keeps its text at least twice: in the event, and in what is
            // known of kinds or series.
            assert!(events * 2 * 240 <= ROOM, "{events} events with long {what}");
        }
        // A series that is replaced over and over leaves nothing behind but kinds.
        let replaced = |n: usize| draft("a").in_series(&long(n % 2), SeriesMode::Latest);
        let store = empty();
        create(&store, "t").await;
        for n in 0..20_000 {
            append(&store, "t", Change::Publish(vec![replaced(n)])).await.unwrap();
        }
    }

    #[tokio::test]
    async fn all_text_of_a_task_counts_as_memory() {
        const ROOM: usize = 1 << 20;
        let hook = || -> crate::domain::Webhook {
            serde_json::from_value(serde_json::json!({"url": "u".repeat(10_000)})).unwrap()
        };
        let store = MemoryStore::new(ROOM, Arc::new(Gone::default()));
        for n in 0..=ROOM / 10_000 {
            let id = TaskId::parse(&format!("t-{n}")).unwrap();
            let spec = NewTask { webhooks: Some(vec![hook()]), ..NewTask::new(id) };
            if matches!(store.create(spec, None).await, Err(StoreError::Full)) {
                return;
            }
        }
        panic!("more text than there is room for");
    }
}
