//! Bounds on what one request may ask for.

/// What requests must keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest request body, in bytes.
    pub body_bytes: usize,
    /// Largest `data` of one event, in bytes.
    pub event_data_bytes: usize,
    /// Largest `result` and `error` of a transition together, in bytes.
    pub outcome_bytes: usize,
    /// Most bytes of all text a task is created with.
    pub task_bytes: usize,
    /// Longest text of an `accumulate` series, in bytes.
    pub series_text_bytes: u64,
    /// Most events in one request.
    pub events_per_request: usize,
    /// Deepest nesting of arrays and objects in a body.
    pub nesting: usize,
    /// Most tags on a task.
    pub tags: usize,
    /// Most webhooks on a task.
    pub webhooks_per_task: usize,
    /// Most events a history request returns.
    pub history_events: usize,
    /// Most tasks on a page of a list.
    pub list_tasks: usize,
    /// Most bytes of payload on a page of a list.
    pub list_page_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        Self {
            body_bytes: 2 * MIB,
            event_data_bytes: MIB,
            outcome_bytes: MIB,
            task_bytes: 4 * MIB,
            series_text_bytes: 16 << 20,
            events_per_request: 1_000,
            nesting: 64,
            tags: 100,
            webhooks_per_task: 20,
            history_events: 10_000,
            list_tasks: 500,
            list_page_bytes: 4 * MIB,
        }
    }
}
