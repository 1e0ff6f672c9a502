//! The real program and its configuration: what it refuses to start with, what
//! it says of the rest, and what it never says.

use std::fs;
use std::path::Path;

use serde_json::Value;
use taskcast::config::update_reference;

use crate::support::place::Place;

const FILE: &str = "taskcast.config.yaml";

/// A secret that no output may contain.
const CANARY: &str = "canary-canary-canary-canary-0032";

/// Settings with secrets in every place that takes one.
const SECRETS: &str = "
auth:
  mode: jwt
  jwt: { secret: canary-canary-canary-canary-0032 }
  custom: { url: \"https://u:canary@auth.example.com/?k=canary\" }
metrics: { token: canary }
postgres: { url: \"postgres://u:canary@db/x?password=canary\" }
sentry: { dsn: \"https://canary@o1.ingest.sentry.io/42\" }
webhook:
  endpoints:
    - { url: \"https://u:canary@hooks.example.com/p?k=canary\", secret: canary }
";

/// Returns what `config show` says of every key.
async fn shown(place: &Place, arguments: &str) -> Value {
    let ended = place.run(&format!("config show --json {arguments}")).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.is_empty(), "{}", ended.stderr);
    let mut whole: Value = serde_json::from_str(&ended.stdout).unwrap();
    whole["settings"].take()
}

#[tokio::test]
async fn a_configuration_that_is_wrong_is_refused_by_file_key_and_reason() {
    for (text, parts) in [
        ("port: [", vec!["not valid YAML", "line "]),
        ("prot: 1", vec!["`prot`", "unknown key", "`port`"]),
        ("port: many", vec!["`port`", "expected a whole number from 0 to 65535"]),
        ("limits: { tags: 0 }", vec!["`limits.tags`", "from 1 to 10000"]),
        ("postgres: { url: \"${NOT_SET}\" }", vec!["`postgres.url`", "`${NOT_SET:-}`"]),
        ("auth: { mode: nnoe }", vec!["`auth.mode`", "`nnoe` is not one of `none`"]),
        ("auth: { mode: \"${NOT_SET:-}\" }", vec!["`auth.mode`", "empty"]),
        ("auth: { mode: jwt }", vec!["`auth.mode`", "needs a key"]),
        ("auth: { mode: jwt, jwt: { secret: short } }", vec!["`auth.jwt.secret`", "5 bytes"]),
        ("auth: { mode: jwt, jwt: { algorithm: ES512 } }", vec!["algorithm`", "`ES512`"]),
        (
            "auth: { mode: jwt, jwt: { algorithm: ES256, publicKeyFile: gone.pem } }",
            vec!["`auth.jwt.publicKeyFile`", "gone.pem", "cannot be read: No such file"],
        ),
        ("auth: { mode: custom }", vec!["`auth.mode`", "`auth.custom.url`"]),
        (
            "webhook: { endpoints: [{ url: http://h, filter: { level: [info] } }] }",
            vec!["`webhook.endpoints[0].filter.level`", "unknown key", "`levels`"],
        ),
        (
            "webhook: { endpoints: [{ url: http://h }, { url: ftp://h }] }",
            vec!["`webhook.endpoints[1].url`", "http:// or https://"],
        ),
        (
            "cleanup: { rules: [{ target: all }, { target: all, match: { status: [running] } }] }",
            vec!["`cleanup.rules[1].match.status[0]`", "`running` is not one of `completed`"],
        ),
        (
            "cleanup: { rules: [{ target: task, eventFilter: { levels: [debug] } }] }",
            vec!["`cleanup.rules[0].eventFilter`", "`events`"],
        ),
        ("sentry: { dsn: here }", vec!["`sentry.dsn`", "expected a DSN"]),
        ("cors: { origins: [\"https://a.example/\"] }", vec!["`cors.origins[0]`", "an origin"]),
        (
            "adapters: { broadcast: { provider: redis } }",
            vec!["`adapters.broadcast.provider`", "nearest supported shape"],
        ),
    ] {
        let place = Place::new().yaml(text);
        let mut parts = parts;
        parts.push(FILE);
        let serve = place.refused("serve --port 0", &parts).await;
        // The same sentence, whichever command finds it.
        for command in ["config check --port 0", "config show --port 0", "dev --port 0"] {
            assert_eq!(place.refused(command, &parts).await, serve, "{command}");
        }
    }
    Place::new().refused("-c gone.toml", &["gone.toml", "does not exist"]).await;
    for script in ["taskcast.config.ts", "taskcast.config.js", "taskcast.config.mjs"] {
        let place = Place::new().file(script, "export default {}").yaml("port: 0");
        place.refused("serve", &[script, "authentication", "-c taskcast.config.yaml"]).await;
        assert_eq!(place.run("config check -c taskcast.config.yaml").await.code, Some(0));
    }
}

#[tokio::test]
async fn a_redis_url_keeps_the_server_from_starting() {
    let place = Place::new().env("TASKCAST_REDIS_URL", "redis://u:canary@h");
    let parts = ["TASKCAST_REDIS_URL", "not supported", "nearest supported shape"];
    let said = place.refused("serve", &parts).await;
    assert!(!said.contains("canary"), "{said}");
}

#[tokio::test]
async fn every_variable_of_the_original_has_an_effect() {
    let pem = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
    for (name, value, key, effect) in [
        ("TASKCAST_PORT", "4000", "port", Value::from(4000)),
        ("TASKCAST_LOG_LEVEL", "debug", "logLevel", Value::from("debug")),
        ("TASKCAST_AUTH_MODE", "jwt", "auth.mode", Value::from("jwt")),
        ("TASKCAST_JWT_SECRET", CANARY, "auth.jwt.secret", Value::from("***")),
        ("TASKCAST_JWT_ALGORITHM", "HS512", "auth.jwt.algorithm", Value::from("HS512")),
        ("TASKCAST_JWT_PUBLIC_KEY", pem, "auth.jwt.publicKey", Value::from("***")),
        (
            "TASKCAST_JWT_PUBLIC_KEY_FILE",
            "key.pem",
            "auth.jwt.publicKeyFile",
            Value::from("key.pem"),
        ),
        ("TASKCAST_JWT_ISSUER", "me", "auth.jwt.issuer", Value::from("me")),
        ("TASKCAST_JWT_AUDIENCE", "you", "auth.jwt.audience", Value::from("you")),
        (
            "TASKCAST_POSTGRES_URL",
            "postgres://u:canary@db/x",
            "postgres.url",
            Value::from("postgres://***@db/x"),
        ),
        ("SENTRY_DSN", "https://canary@h/1", "sentry.dsn", Value::from("https://***@h/1")),
    ] {
        // The file asks for something else, so that the variable has to win.
        let place = Place::new()
            .file("key.pem", pem)
            .yaml("port: 1\nlogLevel: error\npostgres: { url: \"postgres://file/x\" }\nsentry: { dsn: \"https://file@file/1\" }")
            .env(name, value);
        // A mode needs a key, and a key the algorithm it is for.
        let place = match name {
            "TASKCAST_AUTH_MODE" => place.env("TASKCAST_JWT_SECRET", CANARY),
            _ => place,
        };
        let settings = shown(&place, "").await;
        assert_eq!(settings[key]["value"], effect, "{name}");
        assert_eq!(settings[key]["source"], format!("variable {name}"));
    }
}

#[tokio::test]
async fn show_gives_every_value_with_its_origin() {
    let place = Place::new()
        .yaml("limits: { tags: 7 }\nwebhook: { endpoints: [{ url: http://h }] }")
        .env("TASKCAST_LOG_LEVEL", "warn")
        .env("PORT", "82")
        .env("TASKCAST_JWT_ISSUER", "me");
    let settings = shown(&place, "--host ::1").await;
    for (key, value, source) in [
        ("host", Value::from("::1"), "flag --host"),
        ("port", Value::from(82), "variable PORT"),
        ("logLevel", Value::from("warn"), "variable TASKCAST_LOG_LEVEL"),
        ("limits.nesting", Value::from(64), "default"),
        ("postgres.url", Value::Null, "default"),
    ] {
        assert_eq!(settings[key]["value"], value, "{key}");
        assert_eq!(settings[key]["source"], source, "{key}");
    }
    assert!(settings["limits.tags"]["source"].as_str().unwrap().ends_with(FILE));

    let text = place.run("config show").await;
    assert_eq!(text.code, Some(0), "{}", text.stderr);
    for line in [
        "# storage: memory (default)",
        "logLevel = \"warn\" (variable TASKCAST_LOG_LEVEL)",
        "postgres.url = not set (default)",
        "webhook.endpoints[0].url = \"http://h\" (file ",
    ] {
        assert!(text.stdout.contains(line), "`{line}` is not in:\n{}", text.stdout);
    }
    assert!(text.stdout.contains("# warning: variable TASKCAST_JWT_ISSUER"), "{}", text.stdout);
}

#[tokio::test]
async fn check_says_yes_with_what_an_operator_should_know() {
    let place = Place::new().env("TASKCAST_JWT_SECRET", CANARY).env("TASKCAST_PROT", "1");
    let ended = place.run("config check").await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{}", ended.stdout);
    assert!(lines[0].starts_with("warning: TASKCAST_PROT"), "{}", ended.stdout);
    assert!(lines[1].contains("TASKCAST_JWT_SECRET") && lines[1].contains("OPEN"));
    assert!(!ended.stdout.contains("canary"), "{}", ended.stdout);
}

#[tokio::test]
async fn a_secret_appears_in_no_output_and_no_refusal() {
    let place = Place::new().yaml(SECRETS);
    for command in ["config show", "config show --json"] {
        let ended = place.run(command).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.stdout.contains("***"), "{}", ended.stdout);
        assert!(!ended.stdout.contains("canary"), "{}", ended.stdout);
    }
    // Each of these is one slip away from a secret.
    for slip in [
        "prot: 1",
        "host: [",
        "limits: canary",
        "port: canary",
        "logLevel: canary-canary-canary",
        "metrics: { token: [canary] }",
        "sentry: { dsn: canary }",
        "auth: { mode: jwt, jwt: { secret: canary } }",
        "auth: { mode: jwt, jwt: { secret: { canary: canary } } }",
        "auth: { mode: jwt, jwt: { algorithm: ES256, publicKey: canary } }",
        "auth: { mode: custom, custom: { url: canary } }",
        "webhook: { endpoints: [{ url: \"canary://u:canary@h\" }] }",
        "webhook: { endpoints: [{ secret: canary }] }",
        "webhook: { endpoints: canary }",
        "postgres: { url: \"mysql://u:canary@h/x\" }",
        "postgres: { url: \"postgres://u:canary@${NOT_SET}/x\" }",
        "adapters: { shortTerm: { url: \"canary\" } }",
    ] {
        let place = Place::new().yaml(slip).env("TASKCAST_METRICS__TOKEN", CANARY);
        for command in ["serve", "config check", "config show"] {
            let ended = place.run(command).await;
            assert_eq!(ended.code, Some(1), "{slip}: {}", ended.stdout);
            let said = ended.stdout + &ended.stderr;
            assert!(!said.contains("canary"), "{slip}: {said}");
        }
    }
    for (name, value) in [
        ("TASKCAST_WEBHOOK__ENDPOINTS", r#"[{"url": "http://h", "secret": canary}]"#),
        ("TASKCAST_WEBHOOK__ENDPOINTS", r#"[{"url": "http://h", "secret": ["canary"]}]"#),
        ("TASKCAST_POSTGRES_URL", "mysql://u:canary@h/x"),
        ("TASKCAST_SENTRY__DSN", "canary"),
        ("TASKCAST_PORT", "canary"),
    ] {
        let said = Place::new().env(name, value).refused("config show", &[name]).await;
        assert!(!said.contains("canary"), "{said}");
    }
}

#[test]
fn the_reference_in_the_documentation_is_what_the_program_prints() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let page = fs::read_to_string(page).unwrap();
    assert!(
        update_reference(&page).unwrap().as_ref() == Some(&page),
        "docs/configuration.md is out of date; run\n\n    \
         cargo run -- config reference --update docs/configuration.md\n"
    );
}

#[tokio::test]
async fn the_reference_is_printed_and_updated() {
    let place = Place::new().file("page.md", "# none\n");
    let printed = place.run("config reference").await;
    assert_eq!(printed.code, Some(0), "{}", printed.stderr);
    assert!(printed.stdout.contains("| `webhook.endpoints[].url` |"), "{}", printed.stdout);
    place.refused("config reference --update page.md", &["page.md", "no place"]).await;
    place.refused("config reference --update gone.md", &["cannot read gone.md"]).await;
}
