//! The role that serves is not the one that owns the tables.

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::process::Command;

use crate::support::client::text_of;
use crate::support::postgres::Database;
use crate::support::server::PROGRAM;
use crate::support::{Backend, until};

/// What the file of grants calls the roles.
const OWNER: &str = "taskcast_owner";
const SERVER: &str = "taskcast_server";

/// What only an owner may do.
const REFUSED: [&str; 9] = [
    "CREATE TABLE taskcast.mine (a int)",
    "ALTER TABLE taskcast.task ADD COLUMN mine int",
    "CREATE INDEX mine ON taskcast.event (at)",
    "CREATE FUNCTION taskcast.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "DROP TABLE taskcast.event",
    "TRUNCATE taskcast.event",
    "DELETE FROM taskcast.migration",
    "UPDATE taskcast.migration SET success = false",
    "CREATE SCHEMA mine",
];

/// The two roles, under names of this test: roles belong to the whole cluster.
struct Roles {
    database: Database,
    owner: String,
    server: String,
}

impl Roles {
    async fn create() -> Self {
        let database = Database::empty().await;
        let name = |role: &str| format!("{}_{role}", database.name());
        let (owner, server) = (name("owner"), name("server"));
        for role in [&owner, &server] {
            database.execute(&format!("DROP ROLE IF EXISTS {role}")).await;
            database.execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'")).await;
        }
        database.execute(&format!("CREATE SCHEMA taskcast AUTHORIZATION {owner}")).await;
        Self { database, owner, server }
    }

    /// Returns the URL of the database for one of them.
    fn url(&self, role: &str) -> String {
        let url = self.database.url();
        let (scheme, rest) = url.split_once("://").unwrap();
        let (_, address) = rest.rsplit_once('@').unwrap();
        format!("{scheme}://{role}:secret@{address}")
    }

    async fn connect(&self, role: &str) -> PgConnection {
        PgConnection::connect(&self.url(role)).await.unwrap()
    }

    async fn migrate(&self, role: &str, arguments: &[&str]) {
        let directory = tempfile::tempdir().unwrap();
        let output = Command::new(PROGRAM)
            .arg("migrate")
            .args(arguments)
            .env_clear()
            .env("TASKCAST_POSTGRES_URL", self.url(role))
            .current_dir(directory.path())
            .output()
            .await
            .unwrap();
        let written = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&written));
    }

    /// Runs the file of grants as the owner.
    async fn grant(&self) {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/grants.sql");
        let grants = std::fs::read_to_string(file).unwrap();
        assert!(grants.contains(OWNER) && grants.contains(SERVER));
        let grants = grants.replace(OWNER, &self.owner).replace(SERVER, &self.server);
        self.connect(&self.owner).await.execute(AssertSqlSafe(grants)).await.unwrap();
    }

    async fn count(&self, table: &str) -> i64 {
        let mut connection = self.database.connect().await;
        let statement = format!("SELECT count(*) FROM taskcast.{table}");
        sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&mut connection).await.unwrap()
    }

    async fn drop(self) {
        for role in [&self.server, &self.owner] {
            self.database.execute(&format!("DROP OWNED BY {role} CASCADE")).await;
            self.database.execute(&format!("DROP ROLE {role}")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_owns_nothing_serves_and_cannot_change_the_schema() {
    let roles = Roles::create().await;
    roles.migrate(&roles.owner, &[]).await;
    roles.grant().await;
    roles.grant().await;
    // A server looks whether its schema is there; it must be able to.
    roles.migrate(&roles.server, &["--check"]).await;

    let backend = Backend::Postgres(roles.database.clone());
    let url = roles.url(&roles.server);
    let rules = r#"[{"match": {"taskTypes": ["preview"]}, "target": "all"}]"#;
    let environment = [("TASKCAST_POSTGRES_URL", &*url), ("TASKCAST_CLEANUP__RULES", rules)];
    let (one, two) =
        tokio::join!(backend.start_with(&environment), backend.start_with(&environment));
    serves_everything(&roles, &one, &two).await;
    for server in [&one, &two] {
        assert!(!server.log().text().contains("permission denied"), "{}", server.log().text());
    }
    drop((one, two, backend));

    let mut connection = roles.connect(&roles.server).await;
    for statement in REFUSED {
        let error = connection.execute(statement).await.expect_err(statement);
        let code = error.as_database_error().and_then(|error| error.code().map(String::from));
        assert_eq!(code.as_deref(), Some("42501"), "{statement}: {error}");
    }
    // What a later migration makes needs no further grant.
    let mut owner = roles.connect(&roles.owner).await;
    owner.execute("CREATE TABLE taskcast.later (a int)").await.unwrap();
    connection.execute("INSERT INTO taskcast.later VALUES (1)").await.unwrap();
    connection.close().await.unwrap();
    owner.close().await.unwrap();
    roles.drop().await;
}

/// Goes through every duty of a server that touches tables.
async fn serves_everything(
    roles: &Roles,
    one: &crate::support::server::Server,
    two: &crate::support::server::Server,
) {
    // Enough for a block to be summed up, in every mode.
    let id = one.running_task().await;
    let reader = {
        let (two, id) = (two.clone(), id.clone());
        tokio::spawn(async move { two.stream(&id, "").await.rest().await })
    };
    for chunk in 0..3 {
        let events: Vec<Value> = (0..400)
            .map(|n| match n % 3 {
                0 => json!({"type": "n", "data": n + chunk}),
                1 => json!({"type": "t", "data": {"text": "x"}, "seriesId": "t", "seriesMode": "accumulate"}),
                _ => json!({"type": "p", "data": n, "seriesId": "p", "seriesMode": "latest"}),
            })
            .collect();
        one.publish(&id, Value::from(events)).await;
    }
    two.enter(&id, "completed").await;
    assert!(reader.await.unwrap().pop().unwrap().is_done());
    until("the full block is summed up", || async {
        (roles.count("rollup").await > 0).then_some(())
    })
    .await;
    let accumulated = two.history(&id, "?types=t&seriesFormat=accumulated").await;
    assert_eq!(text_of(&accumulated[0]["data"]["text"]).len(), 399);

    // A deadline, a key, a list.
    let brief = text_of(&one.create(json!({"ttl": 1, "tags": ["a"]})).await["id"]);
    until("the task times out", || async {
        (one.task(&brief).await["status"] == "timeout").then_some(())
    })
    .await;
    let keyed = one.json(reqwest::Method::POST, "/tasks", "{}").header("Idempotency-Key", "k");
    one.send(keyed).await.expect(201);
    assert_eq!(roles.count("idempotency").await, 1);
    assert_eq!(one.get("/tasks?tag=a").await.json()["tasks"].as_array().unwrap().len(), 1);

    // A cleanup rule.
    let preview = text_of(&one.create(json!({"type": "preview"})).await["id"]);
    one.enter(&preview, "cancelled").await;
    until("the task is cleaned up", || async {
        (one.get(&format!("/tasks/{preview}")).await.status == 404).then_some(())
    })
    .await;

    // Deleting, and purging what it leaves behind, which is kept for a while.
    one.delete(&format!("/tasks/{id}")).await.expect(204);
    let long_ago = "UPDATE taskcast.task SET deleted_at = 0 WHERE deleted_at IS NOT NULL";
    roles.database.execute(long_ago).await;
    until("the deleted task is purged", || async {
        (roles.count("event").await < 10).then_some(())
    })
    .await;
}
