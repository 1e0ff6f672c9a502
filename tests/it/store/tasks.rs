//! Task documents: creating, finding, listing, falling due.

use std::collections::HashSet;

use futures_util::future::join_all;
use taskcast::domain::{
    Change, Json, ListQuery, NewTask, TaskError, TaskGrant, TaskPage, TaskStatus, Transition,
    TypePattern,
};
use taskcast::store::{Created, Store};

use super::open::Fresh;
use super::{create, create_as, delete, enter, every_task, new_task, publication, task_id};
use crate::support::{Backend, on_every_store, until};

on_every_store![
    a_store_that_takes_writes_says_so,
    a_created_task_is_pending_and_is_found_as_it_was_sent,
    a_task_that_nobody_created_is_not_found,
    of_many_creators_of_one_id_exactly_one_creates_it,
    a_taken_id_leaves_its_task_as_it_was,
    a_transition_keeps_what_it_brought_and_what_was_there,
    a_list_is_newest_first_and_pages_meet_without_overlap,
    a_list_keeps_to_every_condition_at_once,
    a_page_ends_before_it_grows_too_large,
    only_unfinished_tasks_past_their_deadline_are_overdue_oldest_first,
];

async fn a_store_that_takes_writes_says_so(backend: Backend) {
    let store = Fresh::open(&backend).await;
    store.check_writable().await.unwrap();
}

async fn a_created_task_is_pending_and_is_found_as_it_was_sent(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let odd = r#"{"b":1.0,"a":1e400,"b":[123456789012345678901234567890],"z":"\u0000\ud800\/"}"#;
    let sent = NewTask {
        task_type: Some("llm.chat".into()),
        params: Some(Json::from_valid(odd)),
        metadata: Some(Json::from_valid("{ }")),
        tags: Some(vec!["b".into(), "a".into()]),
        ttl_seconds: Some(315_360_000),
        ..new_task("first")
    };
    let created = create_as(&*store, sent).await;
    for task in [created.clone(), store.find(&task_id("first")).await.unwrap().unwrap()] {
        assert_eq!(task.spec.id, task_id("first"));
        assert_eq!(task.spec.task_type.as_deref(), Some("llm.chat"));
        assert_eq!(task.spec.params.unwrap().as_str(), odd);
        assert_eq!(task.spec.metadata.unwrap().as_str(), "{}");
        assert_eq!(task.spec.tags.unwrap(), ["b".into(), "a".into()]);
        assert_eq!(task.spec.ttl_seconds, Some(315_360_000));
        assert_eq!((task.status, task.number), (TaskStatus::Pending, created.number));
        assert_eq!(
            (task.created_at_ms, task.updated_at_ms),
            (created.created_at_ms, created.created_at_ms)
        );
        assert!(task.completed_at_ms.is_none() && task.result.is_none() && task.error.is_none());
    }
    let head = store.head(&task_id("first")).await.unwrap().unwrap();
    assert_eq!((head.next_index, head.task.number), (0, created.number));
    let bare = create(&*store, "second").await.spec;
    assert!(bare.task_type.is_none() && bare.params.is_none() && bare.metadata.is_none());
    assert!(bare.tags.is_none() && bare.ttl_seconds.is_none());
}

async fn a_task_that_nobody_created_is_not_found(backend: Backend) {
    let store = Fresh::open(&backend).await;
    assert!(store.find(&task_id("nobody")).await.unwrap().is_none());
    assert!(store.head(&task_id("nobody")).await.unwrap().is_none());
    assert!(!delete(&*store, &task_id("nobody")).await);
    assert_eq!(store.overdue(10).await.unwrap(), []);
    assert!(store.list(&every_task()).await.unwrap().tasks.is_empty());
}

async fn of_many_creators_of_one_id_exactly_one_creates_it(backend: Backend) {
    let (first, second) = Fresh::open_two(&backend).await;
    let attempts = (0..24).map(|n| {
        let store = if n % 2 == 0 { &first } else { &second };
        let task = NewTask { task_type: Some(format!("by.{n}").into()), ..new_task("wanted") };
        async move { store.create(task, None).await.unwrap() }
    });
    let winners: Vec<_> = join_all(attempts)
        .await
        .into_iter()
        .filter_map(|created| match created {
            Created::New(task) => Some(task),
            Created::Exists => None,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(winners.len(), 1);
    let found = first.find(&task_id("wanted")).await.unwrap().unwrap();
    assert_eq!(found.spec.task_type, winners[0].spec.task_type);
}

async fn a_taken_id_leaves_its_task_as_it_was(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let before = create(&*store, "taken").await;
    let other = NewTask { task_type: Some("other".into()), ..new_task("taken") };
    assert!(matches!(store.create(other, None).await.unwrap(), Created::Exists));
    let after = store.find(&task_id("taken")).await.unwrap().unwrap();
    assert_eq!((after.number, after.spec.task_type), (before.number, None));
}

async fn a_transition_keeps_what_it_brought_and_what_was_there(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let id = create(&*store, "moving").await.spec.id;
    let transition = |to, result: Option<&str>, error| {
        let mut append = publication(&id, Vec::new());
        append.change =
            Change::Transition(Transition { to, result: result.map(Json::from_valid), error });
        append
    };
    let running = transition(TaskStatus::Running, Some(r#"{"n":1.0}"#), None);
    let event = super::accepted(store.append(running).await).remove(0);
    assert_eq!(event.draft.data.as_str(), r#"{"status":"running","result":{"n":1.0}}"#);
    let task = store.find(&id).await.unwrap().unwrap();
    assert_eq!((task.status, task.updated_at_ms), (TaskStatus::Running, event.timestamp_ms));
    assert_eq!(task.completed_at_ms, None);
    assert_eq!(task.result.unwrap().as_str(), r#"{"n":1.0}"#);

    let details = Some(Json::from_valid(r#"{"try":3}"#));
    let error = TaskError { code: Some("E1".into()), message: "it \"broke\"".into(), details };
    let failed = transition(TaskStatus::Failed, None, Some(error.clone()));
    let event = super::accepted(store.append(failed).await).remove(0);
    let expected =
        r#"{"status":"failed","error":{"code":"E1","message":"it \"broke\"","details":{"try":3}}}"#;
    assert_eq!(event.draft.data.as_str(), expected);
    let task = store.find(&id).await.unwrap().unwrap();
    assert_eq!((task.status, task.completed_at_ms), (TaskStatus::Failed, Some(event.timestamp_ms)));
    assert_eq!(task.result.unwrap().as_str(), r#"{"n":1.0}"#);
    assert_eq!(task.error, Some(error));
}

async fn follow(store: &dyn Store, mut query: ListQuery) -> Vec<String> {
    let mut ids = Vec::new();
    loop {
        let TaskPage { tasks, next } = store.list(&query).await.unwrap();
        assert!(tasks.len() <= query.limit);
        ids.extend(tasks.iter().map(|task| task.spec.id.to_string()));
        match next {
            None => return ids,
            Some(next) => query.before = Some(next),
        }
    }
}

async fn a_list_is_newest_first_and_pages_meet_without_overlap(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let mut expected = Vec::new();
    for n in 0..23 {
        create(&*store, &format!("task-{n}")).await;
        expected.insert(0, format!("task-{n}"));
    }
    assert_eq!(follow(&*store, every_task()).await, expected);
    for limit in [1, 7, 23, 24] {
        assert_eq!(follow(&*store, ListQuery { limit, ..every_task() }).await, expected, "{limit}");
    }
    let first = store.list(&ListQuery { limit: 10, ..every_task() }).await.unwrap();
    create(&*store, "newer").await;
    assert!(delete(&*store, &task_id("task-3")).await);
    let rest = follow(&*store, ListQuery { before: first.next, ..every_task() }).await;
    let expected: Vec<_> = expected.into_iter().skip(10).filter(|id| id != "task-3").collect();
    assert_eq!(rest, expected);
}

async fn a_list_keeps_to_every_condition_at_once(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let mut all = Vec::new();
    for (n, task_type) in
        [None, Some("llm"), Some("llm.chat"), Some("tool")].into_iter().cycle().take(32).enumerate()
    {
        let tags: Vec<_> = ["even", "third", "a'b"]
            .into_iter()
            .zip([n % 2 == 0, n % 3 == 0, n % 5 == 0])
            .filter(|(_, has)| *has)
            .map(|(tag, _)| tag.into())
            .collect();
        let task = NewTask {
            task_type: task_type.map(Into::into),
            tags: (!tags.is_empty()).then_some(tags),
            ..new_task(&format!("task-{n}"))
        };
        let id = create_as(&*store, task).await.spec.id;
        if n % 4 < 2 {
            enter(&*store, &id, TaskStatus::Running).await;
        }
        all.insert(0, store.find(&id).await.unwrap().unwrap());
    }
    let pattern = |text: &str| TypePattern::parse(text).unwrap();
    let some = TaskGrant::Only((0..40).step_by(3).map(|n| task_id(&format!("task-{n}"))).collect());
    let queries = [
        ListQuery { statuses: vec![TaskStatus::Running], ..every_task() },
        ListQuery { statuses: vec![TaskStatus::Running, TaskStatus::Pending], ..every_task() },
        ListQuery { statuses: vec![TaskStatus::Failed], ..every_task() },
        ListQuery { types: vec![pattern("llm.*")], ..every_task() },
        ListQuery { types: vec![pattern("llm"), pattern("tool")], ..every_task() },
        ListQuery { types: vec![pattern("*")], ..every_task() },
        ListQuery { tags: vec!["even".into()], ..every_task() },
        ListQuery { tags: vec!["third".into(), "even".into()], ..every_task() },
        ListQuery { tags: vec!["a'b".into()], ..every_task() },
        ListQuery { grant: some.clone(), ..every_task() },
        ListQuery { grant: TaskGrant::Only(Vec::new()), ..every_task() },
        ListQuery {
            grant: some,
            types: vec![pattern("llm.*"), pattern("tool")],
            tags: vec!["third".into()],
            statuses: vec![TaskStatus::Pending],
            ..every_task()
        },
    ];
    for query in queries {
        let admitted = all.iter().filter(|task| query.admits(task));
        let expected: Vec<_> = admitted.map(|task| task.spec.id.to_string()).collect();
        assert_eq!(follow(&*store, query.clone()).await, expected, "{query:?}");
        assert_eq!(
            follow(&*store, ListQuery { limit: 3, ..query.clone() }).await,
            expected,
            "{query:?}"
        );
    }
}

async fn a_page_ends_before_it_grows_too_large(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let params = format!(r#"{{"p":"{}"}}"#, "x".repeat(40_000));
    for n in 0..6 {
        let task =
            NewTask { params: Some(Json::from_valid(&params)), ..new_task(&format!("big-{n}")) };
        create_as(&*store, task).await;
    }
    let page = store.list(&ListQuery { max_bytes: 100_000, ..every_task() }).await.unwrap();
    assert!((1..=2).contains(&page.tasks.len()), "{}", page.tasks.len());
    assert!(page.next.is_some());
    let tiny = ListQuery { max_bytes: 1, ..every_task() };
    assert_eq!(store.list(&tiny).await.unwrap().tasks.len(), 1);
    assert_eq!(follow(&*store, tiny).await.len(), 6);
}

async fn only_unfinished_tasks_past_their_deadline_are_overdue_oldest_first(backend: Backend) {
    let store = Fresh::open(&backend).await;
    let with_ttl = |id: &str, ttl_seconds| NewTask { ttl_seconds, ..new_task(id) };
    for id in ["a", "b", "c", "d", "done", "gone"] {
        create_as(&*store, with_ttl(id, Some(1))).await;
    }
    create_as(&*store, with_ttl("patient", Some(3600))).await;
    create_as(&*store, with_ttl("forever", None)).await;
    enter(&*store, &task_id("b"), TaskStatus::Running).await;
    enter(&*store, &task_id("done"), TaskStatus::Cancelled).await;
    assert!(delete(&*store, &task_id("gone")).await);
    let overdue = until("four tasks are overdue", || async {
        let overdue = store.overdue(100).await.unwrap();
        (overdue.len() >= 4).then_some(overdue)
    })
    .await;
    let found: HashSet<_> = overdue.iter().map(ToString::to_string).collect();
    assert_eq!(found, ["a", "b", "c", "d"].map(str::to_owned).into());
    assert_eq!(overdue.len(), 4);
    let mut times = Vec::new();
    for id in &overdue {
        times.push(store.find(id).await.unwrap().unwrap().created_at_ms);
    }
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(store.overdue(2).await.unwrap(), overdue[..2]);
    enter(&*store, &overdue[0], TaskStatus::Timeout).await;
    assert_eq!(store.overdue(100).await.unwrap(), overdue[1..]);
}
