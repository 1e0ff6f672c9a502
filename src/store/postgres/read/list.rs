//! Lists of tasks, newest first, along indexes.
//!
//! Each filter has an index that leads from newest to oldest: status, type and
//! tag. A page reads from each only as far as it needs to, intersects what it
//! got, and looks up the rows that are left, a bounded number of them. So the
//! cost of a page depends neither on how many tasks there are nor on what the
//! filters match; where filters match little together, pages are short, and
//! the cursor leads on from where the last one stopped looking.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::timeout;

use super::super::PostgresStore;
use super::super::columns::{of_number, of_status, to_i64, to_number};
use super::super::rows::TaskRow;
use super::super::session::Session;
use super::tasks::like_pattern;
use crate::domain::{ListQuery, TASK_BYTES, Task, TaskGrant, TaskPage, TaskStatus, TypePattern};
use crate::store::StoreError;

/// Index entries read for one filter of a page.
const ENTRIES: usize = 4_096;

/// Rows looked up for one page.
const ROWS: usize = 1_000;

/// Types that a prefix is taken apart into; with more, it is looked for among
/// the tasks that other filters name.
const KINDS: usize = 128;

/// How long a page may take. Postgres ends a statement of it before, so that
/// nothing goes on for a caller who was told that it failed.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// The newest tasks a filter names, down to a number.
#[derive(Debug)]
struct Candidates {
    /// Newest first.
    numbers: Vec<i64>,
    /// Below this nothing is known; 0 when these are all.
    floor: i64,
}

impl Candidates {
    /// Merges streams of which each was cut at `cut` tasks.
    fn any_of(streams: &[Vec<i64>], cut: usize) -> Self {
        let last = |stream: &Vec<i64>| stream.last().copied().filter(|_| stream.len() >= cut);
        let floor = streams.iter().filter_map(last).max().unwrap_or(0);
        let mut numbers: Vec<i64> = streams.concat();
        numbers.retain(|number| *number >= floor);
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        numbers.dedup();
        Self { numbers, floor }
    }

    /// Returns the newest tasks that all of these name, as far as they know:
    /// down to where the one that reaches farthest ends.
    fn all_of(mut all: Vec<Self>) -> Self {
        all.sort_by_key(|one| one.floor);
        let mut all = all.into_iter();
        let Some(Self { mut numbers, floor }) = all.next() else {
            return Self { numbers: Vec::new(), floor: 0 };
        };
        for other in all {
            let named: HashSet<i64> = other.numbers.into_iter().collect();
            numbers.retain(|number| *number < other.floor || named.contains(number));
        }
        Self { numbers, floor }.cut(ROWS)
    }

    /// Keeps at most `most`.
    fn cut(mut self, most: usize) -> Self {
        if self.numbers.len() > most {
            self.numbers.truncate(most);
            self.floor = self.numbers.last().copied().unwrap_or(self.floor);
        }
        self
    }
}

/// A query in the terms of the columns; `None` admits all.
struct Filters {
    before: i64,
    limit: usize,
    statuses: Option<Vec<i16>>,
    exact: Option<Vec<String>>,
    prefixes: Vec<String>,
    tags: Option<Vec<String>>,
    ids: Option<Vec<String>>,
}

impl Filters {
    fn of(query: &ListQuery) -> Self {
        let (mut exact, mut prefixes) = (Vec::new(), Vec::new());
        for pattern in &query.types {
            match pattern {
                TypePattern::Any => {}
                TypePattern::Prefix(text) => prefixes.push(text.to_string()),
                TypePattern::Exact(text) => exact.push(text.to_string()),
            }
        }
        let any_type = query.types.is_empty() || query.types.contains(&TypePattern::Any);
        let mut tags: Vec<String> = query.tags.iter().map(ToString::to_string).collect();
        tags.sort_unstable();
        tags.dedup();
        Self {
            before: query.before.map_or(i64::MAX, of_number),
            limit: query.limit,
            statuses: (!query.statuses.is_empty())
                .then(|| query.statuses.iter().map(|status| of_status(*status)).collect()),
            exact: (!any_type).then_some(exact),
            prefixes: if any_type { Vec::new() } else { prefixes },
            tags: (!tags.is_empty()).then_some(tags),
            ids: match &query.grant {
                TaskGrant::Every => None,
                TaskGrant::Only(ids) => Some(ids.iter().map(ToString::to_string).collect()),
            },
        }
    }

    /// Returns how many entries to read of each of so many streams.
    fn share(&self, streams: usize) -> usize {
        let given = [
            self.statuses.is_some(),
            self.exact.is_some(),
            self.tags.as_ref().is_some_and(|tags| tags.len() == 1),
            self.tags.as_ref().is_some_and(|tags| tags.len() > 1),
            self.tags.as_ref().is_some_and(|tags| tags.len() > 1),
            self.ids.is_some(),
        ];
        let page = self.limit + 1;
        // Alone, a filter leads straight to the page.
        if given.into_iter().filter(|given| *given).count() <= 1 {
            return page;
        }
        page.max(ENTRIES / streams.max(1))
    }
}

/// Returns the first text, in order of bytes, that does not begin with
/// `prefix`, which ends with a dot.
fn past(prefix: &str) -> String {
    let mut past = prefix[..prefix.len() - 1].to_owned();
    past.push('/');
    past
}

impl PostgresStore {
    /// Reads a page within bounds on time, connections and rows.
    pub(super) async fn read_list(&self, query: &ListQuery) -> Result<TaskPage, StoreError> {
        let page = async {
            // Lists never take every connection.
            let _permit = self.lists.acquire().await;
            let mut session = self.reads.begin().await?;
            sqlx::query_file!("sql/tasks/list_timeout.sql").fetch_one(&mut session).await?;
            let page = read_page(&mut session, query).await?;
            session.commit().await?;
            Ok(page)
        };
        let late = || StoreError::Unavailable("a list took too long".into());
        timeout(PAGE_TIMEOUT, page).await.unwrap_or_else(|_| Err(late()))
    }
}

async fn read_page(session: &mut Session, query: &ListQuery) -> Result<TaskPage, StoreError> {
    let filters = Filters::of(query);
    let mut candidates = Vec::new();
    if let Some(ids) = &filters.ids {
        candidates.push(with_ids(session, &filters, ids).await?);
    }
    if let Some(exact) = &filters.exact {
        candidates.extend(of_types(session, &filters, exact).await?);
    }
    if let Some(tags) = &filters.tags {
        candidates.extend(with_tags(session, &filters, tags).await?);
    }
    if let Some(statuses) = &filters.statuses {
        let cut = filters.share(statuses.len());
        candidates.push(in_statuses(session, &filters, statuses, cut).await?);
    }
    if candidates.is_empty() {
        // Deleted tasks, which may be many, have none of these. A list of types
        // that no index leads through is looked for among the newest tasks.
        let statuses = TaskStatus::ALL.map(of_status);
        let cut = if filters.exact.is_some() { ROWS } else { filters.limit + 1 };
        candidates.push(in_statuses(session, &filters, &statuses, cut).await?);
    }
    let Candidates { numbers, floor } = Candidates::all_of(candidates);
    let (rows, found) = look_up(session, &filters, &numbers, query.max_bytes).await?;
    let tasks = rows.into_iter().map(Task::try_from).collect::<Result<Vec<_>, _>>()?;
    let next = match tasks.last() {
        Some(last) if found > tasks.len() => Some(last.number),
        _ if floor > 0 => Some(to_number(floor)?),
        _ => None,
    };
    Ok(TaskPage { tasks, next })
}

async fn with_ids(
    session: &mut Session,
    filters: &Filters,
    ids: &[String],
) -> Result<Candidates, StoreError> {
    let numbers =
        sqlx::query_file_scalar!("sql/tasks/list_ids.sql", ids).fetch_all(session).await?;
    let older = numbers.into_iter().filter(|number| *number < filters.before);
    Ok(Candidates::any_of(&[older.collect()], usize::MAX))
}

async fn in_statuses(
    session: &mut Session,
    filters: &Filters,
    statuses: &[i16],
    cut: usize,
) -> Result<Candidates, StoreError> {
    let limit = to_i64(cut as u64);
    let query =
        sqlx::query_file_scalar!("sql/tasks/list_statuses.sql", statuses, filters.before, limit);
    Ok(Candidates::any_of(&query.fetch_all(session).await?, cut))
}

/// Returns what each tag names: a task must have all of them.
async fn with_tags(
    session: &mut Session,
    filters: &Filters,
    tags: &[String],
) -> Result<Vec<Candidates>, StoreError> {
    let cut = filters.share(tags.len());
    let limit = to_i64(cut as u64);
    let query = sqlx::query_file_scalar!("sql/tasks/list_tags.sql", tags, filters.before, limit);
    let streams = query.fetch_all(session).await?.into_iter();
    Ok(streams.map(|stream| Candidates::any_of(&[stream], cut)).collect())
}

/// Returns what a list of types names; `None` when it names so many types that
/// no index leads through them in the order of the list.
async fn of_types(
    session: &mut Session,
    filters: &Filters,
    exact: &[String],
) -> Result<Option<Candidates>, StoreError> {
    let mut types: HashSet<String> = exact.iter().cloned().collect();
    let (prefixes, past): (Vec<String>, Vec<String>) =
        filters.prefixes.iter().map(|prefix| (prefix.clone(), past(prefix))).unzip();
    if !prefixes.is_empty() {
        let most = to_i64(KINDS as u64 + 1);
        let kinds = sqlx::query_file_scalar!("sql/tasks/list_kinds.sql", &prefixes, &past, most)
            .fetch_all(&mut *session)
            .await?;
        if kinds.len() > KINDS {
            return with_prefixes(session, filters, &prefixes, &past, exact).await;
        }
        types.extend(kinds);
    }
    let types: Vec<String> = types.into_iter().collect();
    Ok(Some(with_types(session, filters, &types).await?))
}

async fn with_types(
    session: &mut Session,
    filters: &Filters,
    types: &[String],
) -> Result<Candidates, StoreError> {
    let cut = filters.share(types.len());
    let limit = to_i64(cut as u64);
    let query = sqlx::query_file_scalar!("sql/tasks/list_types.sql", types, filters.before, limit);
    Ok(Candidates::any_of(&query.fetch_all(session).await?, cut))
}

/// Reads all tasks behind prefixes of very many types, if those are few.
async fn with_prefixes(
    session: &mut Session,
    filters: &Filters,
    prefixes: &[String],
    past: &[String],
    exact: &[String],
) -> Result<Option<Candidates>, StoreError> {
    let cut = (ENTRIES / prefixes.len()).max(1);
    let limit = to_i64(cut as u64);
    let mut streams =
        sqlx::query_file_scalar!("sql/tasks/list_prefixes.sql", prefixes, past, limit)
            .fetch_all(&mut *session)
            .await?;
    if streams.iter().any(|stream| stream.len() >= cut) {
        return Ok(None);
    }
    for stream in &mut streams {
        stream.retain(|number| *number < filters.before);
    }
    let with_prefix = Candidates::any_of(&streams, usize::MAX);
    let with_type = with_types(session, filters, exact).await?;
    let floor = with_type.floor;
    let mut both = Candidates::any_of(&[with_prefix.numbers, with_type.numbers], usize::MAX);
    both.numbers.retain(|number| *number >= floor);
    Ok(Some(Candidates { floor, ..both }))
}

/// Reads the page among candidates; returns how many fit the filters, too, at
/// most one more than the page holds.
async fn look_up(
    session: &mut Session,
    filters: &Filters,
    numbers: &[i64],
    max_bytes: usize,
) -> Result<(Vec<TaskRow>, usize), StoreError> {
    let like: Vec<String> = filters
        .prefixes
        .iter()
        .map(|prefix| like_pattern(&TypePattern::Prefix(prefix.as_str().into())))
        .collect();
    let rows = sqlx::query_file!(
        "sql/tasks/list.sql",
        numbers,
        filters.statuses.as_deref() as Option<&[i16]>,
        filters.exact.as_deref() as Option<&[String]>,
        &like,
        filters.tags.as_deref() as Option<&[String]>,
        filters.ids.as_deref() as Option<&[String]>,
        to_i64(TASK_BYTES as u64),
        to_i64(filters.limit as u64),
        to_i64(max_bytes as u64),
    )
    .fetch_all(session)
    .await?;
    let found = rows.first().map_or(0, |row| usize::try_from(row.found).unwrap_or(0));
    let task = rows.into_iter().map(|row| TaskRow {
        number: row.number,
        id: row.id,
        task_type: row.task_type,
        tags: row.tags,
        params: row.params,
        metadata: row.metadata,
        result: row.result,
        error: row.error,
        ttl_seconds: row.ttl_seconds,
        created_at: row.created_at,
        auth_config: row.auth_config,
        webhooks: row.webhooks,
        cleanup: row.cleanup,
        status: row.status,
        updated_at: row.updated_at,
    });
    Ok((task.collect(), found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_streams_are_known_down_to_where_the_first_was_cut() {
        let merged = Candidates::any_of(&[vec![90, 70, 50], vec![80, 10]], 3);
        assert_eq!((merged.numbers, merged.floor), (vec![90, 80, 70, 50], 50));
        let whole = Candidates::any_of(&[vec![90, 70], vec![80, 10]], 3);
        assert_eq!((whole.numbers, whole.floor), (vec![90, 80, 70, 10], 0));
    }

    #[test]
    fn an_intersection_reaches_as_far_as_the_filter_that_reaches_farthest() {
        let rare = Candidates { numbers: vec![90, 60, 30, 20], floor: 20 };
        let common = Candidates { numbers: vec![90, 80, 70, 50], floor: 50 };
        let both = Candidates::all_of(vec![common, rare]);
        assert_eq!((both.numbers, both.floor), (vec![90, 30, 20], 20));
    }

    #[test]
    fn more_candidates_than_are_looked_up_end_the_page_early() {
        let numbers: Vec<i64> = (1..=5_000).rev().collect();
        let page = Candidates::all_of(vec![Candidates { numbers, floor: 0 }]);
        assert_eq!((page.numbers.len(), page.floor), (1_000, 4_001));
    }

    #[test]
    fn what_follows_a_prefix_is_behind_everything_that_begins_with_it() {
        assert_eq!(past("llm."), "llm/");
        assert!("llm.\u{10ffff}" < past("llm.").as_str() && past("llm.").as_str() < "llma");
    }
}
