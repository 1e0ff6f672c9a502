//! Reads, compared with the model.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use taskcast::domain::{Event, Kind, Level, ListQuery, SeriesMode, TaskGrant, TypePattern};
use taskcast::store::{Head, HeadStatus, ReadRange, SeriesSpan, Store, View};

use super::case::{Case, Verdict};
use super::command::{Command, Listing, Name};
use super::draft::Want;
use super::reference::{Life, Model, Series};
use super::rules::RuleSet;

/// Longest wait for cleanup that is held up, short for the sake of shrinking.
const PATIENCE: Duration = Duration::from_secs(5);

/// Rows of a bite of cleanup that is not about its size.
const BITE: usize = 10_000;

impl Case<'_> {
    /// Carries out a read and compares.
    pub(super) async fn look(
        &mut self,
        store: &dyn Store,
        command: &Command,
        model: &Model,
    ) -> Verdict {
        match command {
            Command::Look { life } => self.look_at(store, *life, model).await,
            Command::Read { life, from, to, view, max_events, max_bytes } => {
                let task = self.task_ref(model, *life);
                let (from, to, view) = (*from, *to, *view);
                let (max_events, max_bytes) = (*max_events, *max_bytes);
                let range = ReadRange { task, from, to, view, max_events, max_bytes };
                self.read(store, *life, range, model).await
            }
            Command::Series { life, to } => self.series(store, *life, *to, model).await,
            Command::Count { life, positions, want } => {
                self.count(store, *life, positions, want, model).await
            }
            Command::Position { life, want, nth } => {
                self.position(store, *life, want, *nth, model).await
            }
            Command::After { life, index, later_ms } => {
                let time = self.time(*life, *index).unwrap_or_default() + later_ms;
                self.after(store, *life, time, model).await
            }
            Command::List(listing) => self.list(store, listing, model).await,
            Command::Journal => self.journal(store, model).await,
            Command::Overdue { limit } => self.overdue(store, *limit, model).await,
            _ => Ok(()),
        }
    }

    /// Compares everything there is, as every store shows it.
    pub(super) async fn look_at_everything(&mut self, model: &Model) -> Verdict {
        for store in self.stores() {
            for life in 0..model.lives.len() {
                self.look_at(store, life, model).await?;
                let end = model.lives[life].log.len() as u64;
                for view in [View::Single, View::WithoutDeltas, View::Live] {
                    let task = self.task_ref(model, life);
                    let (from, to) = (0, end + 1);
                    let range =
                        ReadRange { task, from, to, view, max_events: 700, max_bytes: 1 << 20 };
                    self.read(store, life, range, model).await?;
                }
                for to in [end, end / 2] {
                    self.series(store, life, to, model).await?;
                }
                let positions: Vec<u64> = (0..=end).step_by(1 + end as usize / 20).collect();
                for want in wants() {
                    self.count(store, life, &positions, &want, model).await?;
                }
            }
            let (statuses, types) = (Vec::new(), Vec::new());
            let listing = Listing { statuses, types, is_tagged: false, only: None, limit: 3 };
            self.list(store, &listing, model).await?;
            self.overdue(store, 100, model).await?;
            prop_assert_eq!(store.prune_keys(100).await.unwrap(), 0, "keys are young");
        }
        let store = self.stores().next().expect("at least one");
        self.journal(store, model).await
    }

    async fn look_at(&self, store: &dyn Store, life: usize, model: &Model) -> Verdict {
        let (number, expected) = (self.numbers[life], &model.lives[life]);
        let id = self.id(expected.name);
        let heads = store.heads(&[number]).await.unwrap();
        prop_assert!(heads.len() <= 1);
        if expected.is_deleted {
            prop_assert!(heads.iter().all(|head| head.status == HeadStatus::Deleted));
        } else {
            let last = expected.log.len().checked_sub(1);
            let head = Head {
                task: self.task_ref(model, life),
                status: HeadStatus::Is(expected.status),
                next_index: expected.log.len() as u64,
                last_timestamp_ms: last.and_then(|last| self.time(life, last)).unwrap_or_default(),
                auth_config: None,
            };
            prop_assert_eq!(heads, vec![head.clone()]);
            prop_assert_eq!(store.head(&id).await.unwrap(), Some(head));
            let found = store.find(&id).await.unwrap();
            prop_assert!(found.is_some());
            self.check_task(&found.unwrap(), life, expected)?;
        }
        if model.current(expected.name).is_none() {
            prop_assert!(store.find(&id).await.unwrap().is_none());
            prop_assert!(store.head(&id).await.unwrap().is_none());
        }
        Ok(())
    }

    /// Reads a stretch page by page.
    async fn read(
        &self,
        store: &dyn Store,
        life: usize,
        mut range: ReadRange,
        model: &Model,
    ) -> Verdict {
        let expected = &model.lives[life];
        let (from, to) = (range.from, range.to);
        let end = if expected.is_deleted { from } else { to.min(expected.log.len() as u64) };
        let mut events: Vec<Arc<Event>> = Vec::new();
        loop {
            let pages = store.read(std::slice::from_ref(&range)).await.unwrap();
            prop_assert_eq!(pages.len(), 1);
            let (found, covers_to) = (&pages[0].events, pages[0].covers_to);
            prop_assert!(found.len() <= range.max_events);
            let bytes = found.iter().rev().skip(1).map(|event| event.draft.data.as_str().len());
            prop_assert!(bytes.sum::<usize>() < range.max_bytes.max(1), "a page ends in time");
            prop_assert!(found.iter().all(|e| (range.from..covers_to).contains(&e.index)));
            events.extend(found.iter().cloned());
            if range.from >= end {
                prop_assert_eq!(covers_to, range.from, "nothing is said about what is to come");
                break;
            }
            prop_assert!(range.from < covers_to && covers_to <= end, "{} of {}", covers_to, end);
            range.from = covers_to;
        }
        let stretch = usize::try_from(from).unwrap()..usize::try_from(end.max(from)).unwrap();
        if range.view == View::Live {
            // What is superseded may be there still, what was removed may not.
            events.retain(|event| {
                let entry = &expected.log[event.index as usize];
                !entry.is_superseded || entry.is_removed
            });
        }
        let indexes = stretch.filter(|index| {
            let entry = &expected.log[*index];
            entry.is_left() && (range.view != View::WithoutDeltas || !entry.draft.is_delta())
        });
        self.check_events(&events, model, life, indexes)
    }

    /// Compares the `accumulate` series before an index, and what they add up to.
    async fn series(&self, store: &dyn Store, life: usize, to: u64, model: &Model) -> Verdict {
        let expected = &model.lives[life];
        if expected.is_deleted {
            return Ok(());
        }
        let mut spans = store.series_spans(self.numbers[life], to).await.unwrap();
        spans.sort_by(|a, b| a.id.cmp(&b.id));
        let series: BTreeMap<&str, &Series> =
            expected.series.iter().map(|(id, series)| (*id, series)).collect();
        let in_view = series.iter().filter_map(|(id, series)| {
            let mut members = series.members.iter().filter(|index| (**index as u64) < to);
            let is_there = series.mode == SeriesMode::Accumulate
                && series.members.iter().all(|index| !expected.log[*index].is_removed);
            let (first, last) = (*series.members.first()?, *members.next_back()?);
            is_there.then(|| SeriesSpan {
                id: (*id).into(),
                kind: Kind { event_type: series.kind.into(), level: series.level },
                field: series.field.map(Into::into),
                first_index: first as u64,
                last_index: last as u64,
            })
        });
        prop_assert_eq!(&spans, &in_view.collect::<Vec<_>>());
        let task = self.task_ref(model, life);
        for span in &spans {
            let snapshot = store.snapshot(&task, span).await.unwrap();
            let last = usize::try_from(span.last_index).unwrap();
            let whole = self.folded(model, life, series[&*span.id], last);
            prop_assert_eq!(snapshot, Some(whole));
        }
        Ok(())
    }

    /// Returns the newest event of a series with the whole text in it.
    fn folded(&self, model: &Model, life: usize, series: &Series, last: usize) -> Event {
        let expected = &model.lives[life];
        let draft = &expected.log[last].draft;
        let text = expected.text(series, last);
        let whole = series
            .field
            .filter(|field| !text.is_empty() || draft.data.member(field).is_some())
            .map_or_else(|| draft.data.written(), |field| draft.data.with_text(field, &text));
        Event { draft: draft.with_data(&whole), ..self.event(model, life, last) }
    }

    async fn count(
        &self,
        store: &dyn Store,
        life: usize,
        positions: &[u64],
        want: &Want,
        model: &Model,
    ) -> Verdict {
        let expected = &model.lives[life];
        if expected.is_deleted {
            return Ok(());
        }
        let counts = store.count(self.numbers[life], positions, &want.sent()).await.unwrap();
        let count = |position: &u64| {
            let log = expected.log.iter().take(usize::try_from(*position).unwrap());
            log.filter(|entry| want.admits(&entry.draft)).count() as u64
        };
        let expected: Vec<u64> = positions.iter().map(count).collect();
        prop_assert_eq!(counts, expected, "{:?} before {:?}", want, positions);
        Ok(())
    }

    async fn position(
        &self,
        store: &dyn Store,
        life: usize,
        want: &Want,
        nth: u64,
        model: &Model,
    ) -> Verdict {
        let expected = &model.lives[life];
        if expected.is_deleted {
            return Ok(());
        }
        let found = store.position_of(self.numbers[life], &want.sent(), nth).await.unwrap();
        let mut passing =
            expected.log.iter().enumerate().filter(|(_, entry)| want.admits(&entry.draft));
        let expected = passing.nth(usize::try_from(nth).unwrap()).map(|(index, _)| index as u64);
        prop_assert_eq!(found, expected);
        Ok(())
    }

    async fn after(&self, store: &dyn Store, life: usize, time: u64, model: &Model) -> Verdict {
        let expected = &model.lives[life];
        if expected.is_deleted {
            return Ok(());
        }
        let position = store.position_after(self.numbers[life], time).await.unwrap();
        prop_assert!(position <= expected.log.len() as u64);
        for (index, _) in expected.log.iter().enumerate().filter(|(_, entry)| entry.is_left()) {
            let is_later = self.time(life, index).is_some_and(|at| at > time);
            prop_assert_eq!(index as u64 >= position, is_later, "{} at {}", index, position);
        }
        Ok(())
    }

    async fn list(&self, store: &dyn Store, listing: &Listing, model: &Model) -> Verdict {
        let Listing { statuses, types, is_tagged, only, limit } = listing;
        let mut tags = vec![self.label()];
        tags.extend(is_tagged.then(|| "tagged".into()));
        let ids = only.as_ref().map(|names| names.iter().map(|n| self.id(Name::Given(*n))));
        let mut query = ListQuery {
            statuses: statuses.clone(),
            types: types.iter().map(|text| TypePattern::parse(text).unwrap()).collect(),
            tags,
            before: None,
            grant: ids.map_or(TaskGrant::Every, |ids| TaskGrant::Only(ids.collect())),
            limit: *limit,
            max_bytes: 4 << 20,
        };
        let mut tasks = Vec::new();
        loop {
            let page = store.list(&query).await.unwrap();
            prop_assert!(page.tasks.len() <= *limit);
            tasks.extend(page.tasks);
            query.before = page.next;
            if page.next.is_none() {
                break;
            }
        }
        let lives = model.lives.iter().enumerate().rev();
        let expected: Vec<usize> =
            lives.filter(|(_, life)| is_listed(life, listing)).map(|(life, _)| life).collect();
        let numbers: Vec<_> = tasks.iter().map(|task| task.number).collect();
        let wanted: Vec<_> = expected.iter().map(|life| self.numbers[*life]).collect();
        prop_assert_eq!(numbers, wanted, "{:?}", listing);
        for (task, life) in tasks.iter().zip(expected) {
            self.check_task(task, life, &model.lives[life])?;
        }
        Ok(())
    }

    /// Reads the journal on and checks that it told of everything, in order.
    async fn journal(&mut self, store: &dyn Store, model: &Model) -> Verdict {
        let journal = store.journal(Some(&self.mark)).await.unwrap();
        prop_assert!(!journal.has_gap);
        for entry in &journal.entries {
            prop_assert!(journal.mark.covers(entry) && !self.mark.covers(entry));
            let told = self.told.entry(entry.number).or_default();
            if entry.from < entry.next_index {
                prop_assert_eq!(entry.from, *told, "entries join up: {:?}", entry);
                *told = entry.next_index;
            }
        }
        self.mark = journal.mark;
        for (number, life) in self.numbers.iter().zip(&model.lives) {
            let told = self.told.get(number).copied().unwrap_or_default();
            prop_assert_eq!(told, life.log.len() as u64, "of {:?}", number);
        }
        Ok(())
    }

    async fn overdue(&self, store: &dyn Store, limit: usize, model: &Model) -> Verdict {
        let mut expected: Vec<(u64, String)> = Vec::new();
        for (life, created) in model.lives.iter().zip(&self.created) {
            if !life.is_deleted && !life.is_finished() && life.spec.ttl_seconds == Some(0) {
                expected.push((*created, self.id(life.name).to_string()));
            }
        }
        let overdue = store.overdue(limit).await.unwrap();
        let mut found = Vec::new();
        for id in &overdue {
            let known = expected.iter().find(|(_, known)| known == id.as_str());
            prop_assert!(known.is_some(), "{} is not overdue", id);
            found.extend(known.cloned());
        }
        prop_assert_eq!(found.len(), expected.len().min(limit));
        let times = |of: &[(u64, String)]| of.iter().map(|(at, _)| *at).collect::<Vec<_>>();
        let mut oldest = times(&expected);
        oldest.sort_unstable();
        oldest.truncate(limit);
        prop_assert_eq!(times(&found), oldest, "oldest first");
        Ok(())
    }

    /// Cleans up in bites and checks that nothing goes that should stay, and
    /// at the end that all is gone that should go.
    pub(super) async fn clean(
        &mut self,
        store: &dyn Store,
        rules: RuleSet,
        bites: &[usize],
        model: &Model,
    ) -> Verdict {
        let rules = rules.sent();
        while store.schedule_cleanup(&rules, 7).await.unwrap() > 0 {}
        for limit in bites {
            store.clean(&rules, *limit).await.unwrap();
            self.check_kept(store, model).await?;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            // The background may hold a log for a moment; it then stays due.
            let cleaned = store.clean(&rules, BITE).await.unwrap();
            if cleaned.more {
                continue;
            }
            let verdict = self.look_at_lives(store, model).await;
            if verdict.is_ok() || Instant::now() > deadline {
                return verdict;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn look_at_lives(&self, store: &dyn Store, model: &Model) -> Verdict {
        for life in 0..model.lives.len() {
            self.look_at(store, life, model).await?;
            let range = self.whole(model, life);
            self.read(store, life, range, model).await?;
        }
        Ok(())
    }

    fn whole(&self, model: &Model, life: usize) -> ReadRange {
        let task = self.task_ref(model, life);
        let to = model.lives[life].log.len() as u64;
        ReadRange { task, from: 0, to, view: View::Single, max_events: BITE, max_bytes: 1 << 24 }
    }

    /// Checks that what stays in the end is there all along.
    async fn check_kept(&self, store: &dyn Store, model: &Model) -> Verdict {
        for (life, expected) in model.lives.iter().enumerate() {
            if expected.is_deleted {
                continue;
            }
            let range = self.whole(model, life);
            let page = store.read(&[range]).await.unwrap().remove(0);
            let kept: Vec<Arc<Event>> = page
                .events
                .into_iter()
                .filter(|event| expected.log[event.index as usize].is_left())
                .collect();
            let indexes = (0..expected.log.len()).filter(|index| expected.log[*index].is_left());
            self.check_events(&kept, model, life, indexes)?;
        }
        Ok(())
    }
}

fn is_listed(life: &Life, listing: &Listing) -> bool {
    let Listing { statuses, types, is_tagged, only, .. } = listing;
    let type_fits = |pattern: &&str| {
        *pattern == "*" || life.spec.kind.is_some_and(|kind| super::draft::fits(pattern, kind))
    };
    let is_granted = |names: &Vec<u8>| names.iter().any(|name| life.name == Name::Given(*name));
    !life.is_deleted
        && (statuses.is_empty() || statuses.contains(&life.status))
        && (types.is_empty() || types.iter().any(type_fits))
        && (!is_tagged || life.spec.is_tagged)
        && only.as_ref().is_none_or(is_granted)
}

/// Filters that the whole state is counted under.
fn wants() -> [Want; 3] {
    let (types, levels) = (Vec::new(), Vec::new());
    [
        Want { types: types.clone(), levels: levels.clone(), include_status: true },
        Want { types: vec!["llm.*"], levels, include_status: false },
        Want { types, levels: vec![Level::Info, Level::Warn], include_status: true },
    ]
}
