//! A transaction pooler between the server and its database.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::Backend;
use crate::support::client::column;
use crate::support::pooler::Pooler;
use crate::support::postgres::Database;
use crate::support::sse::members;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_works_through_a_pooler_that_hands_sessions_around() {
    let database = Database::migrated().await;
    let direct = database.url();
    let pooler = Pooler::start(&direct).await;
    let pooled = pooler.url();
    let backend = Backend::Postgres(database);
    let environment =
        [("TASKCAST_POSTGRES_URL", &*pooled), ("TASKCAST_POSTGRES_DIRECT_URL", &*direct)];
    let (first, second) =
        tokio::join!(backend.start_with(&environment), backend.start_with(&environment));

    let ids = join_all((0..8).map(|_| first.running_task())).await;
    let readers: Vec<_> = ids
        .iter()
        .map(|id| {
            let (server, id) = (second.clone(), id.clone());
            tokio::spawn(async move { server.stream(&id, "").await.rest().await })
        })
        .collect();
    let write = |id: String| {
        let (first, second) = (first.clone(), second.clone());
        async move {
            for n in 0..40 {
                // Both write, so that lanes lock as well.
                let server = if n % 4 == 0 { &second } else { &first };
                server.publish(&id, json!({"type": "n", "data": n})).await;
            }
            first.enter(&id, "completed").await;
        }
    };
    join_all(ids.iter().cloned().map(write)).await;
    for (id, reader) in ids.iter().zip(readers) {
        let mut frames = reader.await.unwrap();
        assert!(frames.pop().unwrap().is_done());
        let data = members(&frames[1..frames.len() - 1], "data");
        assert_eq!(data, (0..40).map(Value::from).collect::<Vec<_>>());
        assert_eq!(members(&frames, "eventId"), column(&first.history(id, "").await, "id"));
    }
    let page = first.get("/tasks?status=completed").await.expect(200).json();
    assert_eq!(page["tasks"].as_array().unwrap().len(), 8);
    first.delete(&format!("/tasks/{}", ids[0])).await.expect(204);
    second.get(&format!("/tasks/{}", ids[0])).await.refused(404, "task_not_found");
}
