//! Reading a stretch of a log once, page by page, without following it.

use std::sync::Arc;

use super::Dispatcher;
use super::collapse::CollapsedView;
use super::reads::{Reads, Start};
use super::subscription::denial;
use crate::domain::{Anchor, Cursor, Decision, Event, Filter, Guard, TaskId};
use crate::store::{HeadStatus, StoreError, View};

/// What part of a log is wanted.
#[derive(Debug, Clone)]
pub struct HistoryRequest {
    /// The task.
    pub task: TaskId,
    /// Events wanted.
    pub filter: Filter,
    /// Where to begin.
    pub cursor: Cursor,
    /// Most events to return.
    pub limit: usize,
    /// Whether each `accumulate` series is wanted as one snapshot.
    pub accumulated: bool,
    /// Who wants it, where the task's own rules shall have a say.
    pub guard: Option<Guard>,
}

/// What a history begins with.
#[derive(Debug)]
pub enum OpenedHistory {
    /// Events follow.
    History(Box<History>),
    /// The task's own rules do not let the reader.
    Denied(Decision),
}

/// An event of a history, and whether it stands for its whole series.
#[derive(Debug, Clone)]
pub struct HistoryEvent {
    /// The event.
    pub event: Arc<Event>,
    /// Whether it is a snapshot.
    pub is_snapshot: bool,
}

/// A history being read.
#[derive(Debug)]
pub struct History {
    reads: Reads,
    filter: Filter,
    start: Start,
    collapsed: Option<CollapsedView>,
    next: u64,
    to: u64,
    left: usize,
    is_reset: bool,
}

impl Dispatcher {
    /// Opens a task's history as it is now; `None` when there is no such task.
    pub async fn history(
        self: &Arc<Self>,
        request: HistoryRequest,
    ) -> Result<Option<OpenedHistory>, StoreError> {
        let _permit = self.history_reads.acquire().await;
        let Some(head) = self.source().store.head(&request.task).await? else { return Ok(None) };
        if head.status == HeadStatus::Deleted {
            return Ok(None);
        }
        if let Some(denied) = denial(request.guard.as_ref(), &head) {
            return Ok(Some(OpenedHistory::Denied(denied)));
        }
        let to = head.next_index;
        let anchor = request.cursor.resolve(head.task.number, to);
        let reads = Reads { dispatcher: self.clone(), task: head.task, topic: None };
        let anchor = reads.verified(anchor, to).await?;
        let start = reads.locate(anchor, &request.filter, to).await?;
        let collapsed = if request.accumulated {
            Some(CollapsedView::open(&reads, start.from, to, &request.filter).await?)
        } else {
            None
        };
        let (filter, left, next) = (request.filter, request.limit, start.from);
        let is_reset = anchor == Anchor::Start { reset: true };
        let history = History { reads, filter, start, collapsed, next, to, left, is_reset };
        Ok(Some(OpenedHistory::History(Box::new(history))))
    }
}

impl History {
    /// Says whether the cursor is unknown here, so that this is from the start.
    pub fn is_reset(&self) -> bool {
        self.is_reset
    }

    /// Returns the next events; none at the end.
    pub async fn read(&mut self) -> Result<Vec<HistoryEvent>, StoreError> {
        let dispatcher = self.reads.dispatcher.clone();
        let _permit = dispatcher.history_reads.acquire().await;
        let mut found = Vec::new();
        while found.is_empty() && self.left > 0 {
            if let Some(view) = &mut self.collapsed {
                if view.is_done() {
                    break;
                }
                let entries = view.read(&self.reads, &self.filter).await?;
                found.extend(entries.into_iter().filter(|entry| entry.passes).map(|entry| {
                    HistoryEvent { event: entry.slot.event.clone(), is_snapshot: entry.is_snapshot }
                }));
            } else {
                if self.next >= self.to {
                    break;
                }
                let page = self.reads.page(self.next, self.to, self.to, View::Single).await?;
                if page.covers_to == self.next {
                    break;
                }
                self.next = page.covers_to;
                let passing = page.events.iter().filter(|event| self.filter.admits(event));
                let single =
                    |event: &Arc<Event>| HistoryEvent { event: event.clone(), is_snapshot: false };
                found.extend(passing.map(single));
            }
            found.retain(|found| found.event.timestamp_ms >= self.start.min_timestamp_ms);
        }
        found.truncate(self.left);
        self.left -= found.len();
        Ok(found)
    }
}
