//! The store in memory, behind a network: others may act before and after
//! everything it is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use shuttle::future::yield_now;

use crate::domain::{
    Append, CleanupRules, DeliveryId, Event, Filter, IdempotencyKey, ListQuery, NewTask, Task,
    TaskId, TaskNumber, TaskPage,
};
use crate::store::memory::MemoryStore;
use crate::store::{
    Appended, Backlog, CancelledDelivery, ClaimedDelivery, Cleaned, Cleanup, Commit,
    CommitListener, Created, Deliveries, Delivery, DeliveryClaim, DeliveryOutcome, DueReceivers,
    Events, Head, Journal, JournalMark, Lead, Page, ReadRange, SeriesSpan, StoreError, TaskRef,
    Tasks, View,
};

/// The commits of the store are told of by the tests, when they like.
struct Nobody;

impl CommitListener for Nobody {
    fn committed(&self, _commits: &[Commit]) {}
}

/// A store for an exploration.
pub(super) struct Shelf {
    pub(super) memory: MemoryStore,
    /// Whether readers register too late: what they read after registering is
    /// what they read before it.
    reads_before_registering: bool,
    found: parking_lot::Mutex<Option<Head>>,
    /// Reads of pages of single events.
    pub(super) single_reads: AtomicUsize,
}

impl Shelf {
    pub(super) fn new() -> Self {
        Self {
            memory: MemoryStore::new(1 << 20, Arc::new(Nobody)),
            reads_before_registering: false,
            found: parking_lot::Mutex::default(),
            single_reads: AtomicUsize::new(0),
        }
    }

    /// Makes a store that gives readers the head of the moment before they
    /// registered, as if they had read first.
    pub(super) fn read_too_early() -> Self {
        Self { reads_before_registering: true, ..Self::new() }
    }
}

#[async_trait]
impl Events for Shelf {
    async fn append(&self, append: Append) -> Result<Appended, StoreError> {
        self.memory.append(append).await
    }

    async fn head(&self, id: &TaskId) -> Result<Option<Head>, StoreError> {
        yield_now().await;
        let head = self.memory.head(id).await;
        *self.found.lock() = head.clone().ok().flatten();
        yield_now().await;
        head
    }

    async fn heads(&self, numbers: &[TaskNumber]) -> Result<Vec<Head>, StoreError> {
        yield_now().await;
        let mut heads = self.memory.heads(numbers).await?;
        if self.reads_before_registering {
            heads = self.found.lock().clone().into_iter().collect();
        }
        yield_now().await;
        Ok(heads)
    }

    async fn read(&self, ranges: &[ReadRange]) -> Result<Vec<Page>, StoreError> {
        yield_now().await;
        let pages = self.memory.read(ranges).await;
        let single = ranges.iter().filter(|range| range.view == View::Single).count();
        self.single_reads.fetch_add(single, Ordering::Relaxed);
        yield_now().await;
        pages
    }

    async fn series_spans(&self, task: TaskNumber, to: u64) -> Result<Vec<SeriesSpan>, StoreError> {
        self.memory.series_spans(task, to).await
    }

    async fn snapshot(
        &self,
        task: &TaskRef,
        span: &SeriesSpan,
    ) -> Result<Option<Event>, StoreError> {
        self.memory.snapshot(task, span).await
    }

    async fn count(
        &self,
        task: TaskNumber,
        positions: &[u64],
        filter: &Filter,
    ) -> Result<Vec<u64>, StoreError> {
        self.memory.count(task, positions, filter).await
    }

    async fn position_of(
        &self,
        task: TaskNumber,
        filter: &Filter,
        nth: u64,
    ) -> Result<Option<u64>, StoreError> {
        self.memory.position_of(task, filter, nth).await
    }

    async fn position_after(&self, task: TaskNumber, timestamp_ms: u64) -> Result<u64, StoreError> {
        self.memory.position_after(task, timestamp_ms).await
    }

    async fn journal(&self, mark: Option<&JournalMark>) -> Result<Journal, StoreError> {
        yield_now().await;
        let journal = self.memory.journal(mark).await;
        yield_now().await;
        journal
    }
}

#[async_trait]
impl Tasks for Shelf {
    async fn create(
        &self,
        task: NewTask,
        key: Option<IdempotencyKey>,
    ) -> Result<Created, StoreError> {
        self.memory.create(task, key).await
    }

    async fn find(&self, id: &TaskId) -> Result<Option<Task>, StoreError> {
        self.memory.find(id).await
    }

    async fn list(&self, query: &ListQuery) -> Result<TaskPage, StoreError> {
        self.memory.list(query).await
    }

    async fn delete(&self, task: &TaskRef) -> Result<bool, StoreError> {
        self.memory.delete(task).await
    }

    async fn overdue(&self, limit: usize) -> Result<Vec<TaskId>, StoreError> {
        self.memory.overdue(limit).await
    }

    async fn check_writable(&self) -> Result<(), StoreError> {
        self.memory.check_writable().await
    }

    async fn purge(&self, limit: usize) -> Result<usize, StoreError> {
        self.memory.purge(limit).await
    }
}

#[async_trait]
impl Deliveries for Shelf {
    async fn due_receivers(&self, from: u64, limit: usize) -> Result<DueReceivers, StoreError> {
        self.memory.due_receivers(from, limit).await
    }

    async fn claim(&self, claims: &[DeliveryClaim]) -> Result<Vec<ClaimedDelivery>, StoreError> {
        self.memory.claim(claims).await
    }

    async fn cancel_unclaimed(
        &self,
        known: &[u64],
        unclaimed_ms: u64,
        limit: usize,
    ) -> Result<Vec<CancelledDelivery>, StoreError> {
        self.memory.cancel_unclaimed(known, unclaimed_ms, limit).await
    }

    async fn settle(&self, outcomes: &[DeliveryOutcome]) -> Result<(), StoreError> {
        self.memory.settle(outcomes).await
    }

    async fn deliveries(
        &self,
        task: &TaskRef,
        before: Option<&DeliveryId>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        self.memory.deliveries(task, before, limit).await
    }

    async fn redeliver(
        &self,
        task: &TaskRef,
        id: &DeliveryId,
    ) -> Result<Option<Delivery>, StoreError> {
        self.memory.redeliver(task, id).await
    }

    async fn prune_deliveries(&self, limit: usize) -> Result<usize, StoreError> {
        self.memory.prune_deliveries(limit).await
    }
}

#[async_trait]
impl Cleanup for Shelf {
    async fn lead_cleanup(
        &self,
        holder: u64,
        rules: &CleanupRules,
        ttl_ms: u64,
    ) -> Result<Lead, StoreError> {
        self.memory.lead_cleanup(holder, rules, ttl_ms).await
    }

    async fn schedule_cleanup(
        &self,
        rules: &CleanupRules,
        limit: usize,
    ) -> Result<usize, StoreError> {
        self.memory.schedule_cleanup(rules, limit).await
    }

    async fn clean(&self, rules: &CleanupRules, limit: usize) -> Result<Cleaned, StoreError> {
        self.memory.clean(rules, limit).await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.memory.backlog().await
    }

    async fn prune_keys(&self, limit: usize) -> Result<usize, StoreError> {
        self.memory.prune_keys(limit).await
    }
}
