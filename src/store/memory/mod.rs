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
use self::deliveries::{DELIVERY_BYTES, Debt, DeliverySpot};
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

/// Tasks a list looks at before it returns a short page.
const LIST_EFFORT: usize = 10_000;

/// Keeps tasks and events in this process.
pub struct MemoryStore {
    state: Mutex<State>,
    max_bytes: usize,
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
}

impl Record {
    fn size_bytes(&self) -> usize {
        self.task.size_bytes() + self.log.size_bytes() + self.debts.len() * DELIVERY_BYTES
    }

    fn task_ref(&self) -> TaskRef {
        TaskRef { id: self.task.spec.id.clone(), number: self.task.number }
    }
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

/// What a key takes up, roughly.
const KEY_BYTES: usize = 256;

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

    /// Remembers what a request with a key did.
    fn remember_key(&mut self, key: Option<IdempotencyKey>, did: KeyRecord) {
        let Some(key) = key else { return };
        self.key_ages.push_back((did.at_ms, key.key));
        self.bytes += KEY_BYTES;
        self.keys.insert(key.key, KeyRecord { request: key.request, ..did });
    }

    fn forget_key(&mut self, key: &[u8; 32]) {
        if self.keys.remove(key).is_some() {
            self.bytes -= KEY_BYTES;
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
        Self { state: Mutex::new(state), max_bytes, listener }
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
            let mut finished = state.finished.iter().map(|(_, number)| *number);
            let oldest = finished.find(|number| Some(*number) != spare);
            let Some(oldest) = oldest else {
                self.listener.reported(&Report::Failed(StorePart::Writer, &StoreError::Full));
                return Err(StoreError::Full);
            };
            let events = state.records.get(&oldest).map_or(0, |record| record.state.next_index);
            let gone = state.remove(oldest);
            self.listener.committed(gone.as_slice());
            if let Some(commit) = &gone {
                self.listener.reported(&Report::Evicted(&commit.task, events));
            }
        }
        Ok(())
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
        self.make_room(&mut state, task.size_bytes() + KEY_BYTES, None)?;
        state.last_number = number.get();
        state.numbers.insert(task.spec.id.clone(), number);
        if let Some(deadline) = State::deadline_of(&task) {
            state.deadlines.insert((deadline, number));
        }
        let id = Some(task.spec.id.clone());
        let did = KeyRecord { request: [0; 32], number, task: id, first_index: 0, at_ms: now };
        state.remember_key(key, did);
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
        let state = self.state.lock();
        let mut page = TaskPage { tasks: Vec::new(), next: None };
        let (mut bytes, mut looked_at) = (0, 0);
        let below = query.before.map_or(u64::MAX, TaskNumber::get);
        for (number, record) in state.records.iter().rev() {
            if number.get() >= below {
                continue;
            }
            let full = page.tasks.len() >= query.limit
                || (bytes > 0 && bytes + record.task.size_bytes() > query.max_bytes)
                || looked_at >= LIST_EFFORT;
            if full {
                // The next page goes on below the last task this one decided on.
                page.next = TaskNumber::new(number.get() + 1);
                break;
            }
            looked_at += 1;
            if query.admits(&record.task) {
                bytes += record.task.size_bytes();
                page.tasks.push(record.task.clone());
            }
        }
        Ok(page)
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
    use crate::domain::{Append, AppendRules, Change, EventDraft, Json, Level, Transition};
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
}
