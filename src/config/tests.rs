//! What loading a configuration accepts, prefers and refuses.

use std::fs;

use super::*;

/// A working directory with an environment and flags.
pub(super) struct Setup {
    directory: tempfile::TempDir,
    options: LoadOptions,
}

impl Setup {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = LoadOptions {
            purpose: Purpose::Serve,
            flags: Flags::default(),
            file: None,
            environment: Environment::default(),
            directory: directory.path().to_owned(),
        };
        Self { directory, options }
    }

    pub(super) fn file(self, name: &str, text: &str) -> Self {
        fs::write(self.directory.path().join(name), text).unwrap();
        self
    }

    pub(super) fn yaml(self, text: &str) -> Self {
        self.file("taskcast.config.yaml", text)
    }

    pub(super) fn env(mut self, variables: &[(&str, &str)]) -> Self {
        self.options.environment = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        self
    }

    fn flags(mut self, flags: Flags) -> Self {
        self.options.flags = flags;
        self
    }

    fn purpose(mut self, purpose: Purpose) -> Self {
        self.options.purpose = purpose;
        self
    }

    fn asking_for(mut self, path: &str) -> Self {
        self.options.file = Some(path.into());
        self
    }

    pub(super) fn load(&self) -> Config {
        Config::load(&self.options).unwrap_or_else(|error| panic!("refused: {error}"))
    }

    /// Loads and returns the refusal, which must name every given part.
    pub(super) fn refused(&self, parts: &[&str]) -> String {
        let error = Config::load(&self.options).expect_err("accepted").to_string();
        for part in parts {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
        error
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn url(text: &str) -> SecretUrl {
    SecretUrl::parse(text).unwrap()
}

fn postgres(text: &str) -> Storage {
    Storage::Postgres { url: url(text), direct_url: None }
}

fn variable(name: &str) -> Source {
    Source::Variable(name.to_owned())
}

#[test]
fn an_empty_directory_gives_the_defaults() {
    let config = Setup::new().load();
    assert_eq!((config.port, config.host.as_str()), (3721, "0.0.0.0"));
    assert_eq!(config.log_level, LogLevel::Info);
    assert_eq!(config.storage, Storage::Memory);
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.sse, Sse::default());
    assert_eq!(config.cors, CorsOrigins::Off);
    assert_eq!(config.sources.port, Source::Default);
    assert!(config.warnings.is_empty());
}

#[test]
fn flags_win_over_the_environment_over_the_file_over_defaults() {
    let setup = Setup::new()
        .yaml("port: 1\nhost: file\nlogLevel: error\nlimits: { tags: 7 }\n")
        .env(&[("TASKCAST_PORT", "2"), ("TASKCAST_HOST", "env")])
        .flags(Flags { port: Some(3), ..Flags::default() });
    let config = setup.load();
    assert_eq!((config.port, config.host.as_str()), (3, "env"));
    assert_eq!(config.log_level, LogLevel::Error);
    assert_eq!(config.limits.tags, 7);
    assert_eq!(config.limits.nesting, 64);
    assert_eq!(config.sources.port, Source::Flag("--port".to_owned()));
    assert_eq!(config.sources.host, variable("TASKCAST_HOST"));
}

#[test]
fn json_toml_and_yml_are_read_like_yaml() {
    for (name, text) in [
        ("taskcast.config.yml", "sse: { drainMs: 9 }"),
        ("taskcast.config.json", r#"{"sse": {"drainMs": 9}}"#),
        ("taskcast.config.toml", "[sse]\ndrainMs = 9"),
    ] {
        assert_eq!(Setup::new().file(name, text).load().sse.drain_ms, 9, "{name}");
    }
}

#[test]
fn a_file_without_values_is_a_file() {
    assert_eq!(Setup::new().yaml("# nothing\n").load().port, 3721);
    assert_eq!(Setup::new().yaml("port:\nsse:\n").load().port, 3721);
}

#[test]
fn the_file_asked_for_replaces_the_search() {
    let setup = Setup::new().yaml("port: 1").file("other.toml", "port = 2");
    assert_eq!(setup.asking_for("other.toml").load().port, 2);
}

#[test]
fn a_missing_file_that_was_asked_for_is_refused() {
    Setup::new().asking_for("gone.yaml").refused(&["gone.yaml", "does not exist"]);
}

#[test]
fn a_script_is_refused_unless_another_file_is_asked_for() {
    for script in ["taskcast.config.ts", "taskcast.config.js", "taskcast.config.mjs"] {
        let setup = Setup::new().file(script, "").yaml("port: 1");
        setup.refused(&[script, "authentication", "-c taskcast.config.yaml"]);
        assert_eq!(setup.asking_for("taskcast.config.yaml").load().port, 1);
        let setup = Setup::new().file(script, "").asking_for(script);
        setup.refused(&[script, "not supported"]);
    }
}

#[test]
fn what_does_not_parse_is_refused_with_the_line_and_without_its_text() {
    for (name, text) in [
        ("taskcast.config.yaml", "port: 1\nhost: [canary\n"),
        ("taskcast.config.json", "{\n\"host\": canary}"),
        ("taskcast.config.toml", "port = 1\nhost = canary\n"),
    ] {
        let error = Setup::new().file(name, text).refused(&[name, "not valid", "line"]);
        assert!(!error.contains("canary"), "{error}");
    }
    Setup::new().file("x.conf", "").asking_for("x.conf").refused(&["x.conf", ".yaml"]);
}

#[test]
fn unknown_keys_are_refused_with_the_known_ones() {
    Setup::new().yaml("prot: 1").refused(&[
        "taskcast.config.yaml",
        "`prot`",
        "unknown key",
        "`port`",
    ]);
    Setup::new()
        .yaml("limits: { bodybytes: 1 }")
        .env(&[("TASKCAST_LIMITS__TAGS", "5")])
        .refused(&["taskcast.config.yaml", "`limits.bodybytes`", "`bodyBytes`"]);
}

#[test]
fn wrong_types_are_refused_without_showing_text() {
    for (text, key) in [
        ("port: canary", "`port`"),
        ("port: -1", "`port`"),
        ("port: 70000", "`port`"),
        ("port: \"3721\"", "`port`"),
        ("limits: canary", "`limits`"),
        ("limits: { tags: 1.5 }", "`limits.tags`"),
        ("postgres: { url: 5 }", "`postgres.url`"),
        ("postgres: postgres://u:canary@h/d", "`postgres`"),
        ("cors: { origins: canary }", "`cors.origins`"),
        ("postgres: { listen: canary }", "`postgres.listen`"),
        ("host: { a: b }", "`host`"),
    ] {
        let error = Setup::new().yaml(text).refused(&["taskcast.config.yaml", key, "expected"]);
        assert!(!error.contains("canary"), "{error}");
    }
    Setup::new().yaml("logLevel: loud").refused(&["`logLevel`", "`loud`", "`debug`"]);
    Setup::new().env(&[("TASKCAST_PORT", "x")]).refused(&["variable TASKCAST_PORT", "`port`"]);
}

#[test]
fn numbers_out_of_range_are_refused_with_the_range() {
    Setup::new().yaml("limits: { tags: 0 }").refused(&[
        "taskcast.config.yaml",
        "`limits.tags`",
        "from 1 to 10000",
    ]);
    Setup::new()
        .env(&[("TASKCAST_SSE__KEEP_ALIVE_MS", "0")])
        .refused(&["variable TASKCAST_SSE__KEEP_ALIVE_MS", "`sse.keepAliveMs`"]);
}

#[test]
fn placeholders_are_typed_by_their_key() {
    let setup = Setup::new()
        .yaml("port: ${P}\nhost: ${H}\npostgres: { listen: \"${L:-false}\", url: \"postgres://u:${W}@${DB:-db}/x\" }")
        .env(&[("P", "81"), ("H", "123"), ("W", "a: b # c")]);
    let config = setup.load();
    assert_eq!((config.port, config.host.as_str()), (81, "123"));
    assert!(!config.postgres.listen);
    assert_eq!(config.storage, postgres("postgres://u:a: b # c@db/x"));
}

#[test]
fn an_unset_placeholder_is_refused_with_its_spelling() {
    Setup::new().yaml("postgres: { url: \"${DB_URL}\" }").refused(&[
        "taskcast.config.yaml",
        "`postgres.url`",
        "`${DB_URL}`",
        "`${DB_URL:-}`",
    ]);
    Setup::new().yaml("port: ${P}").env(&[("P", "many")]).refused(&["`port`", "expected"]);
}

#[test]
fn an_empty_value_is_absent() {
    let setup = Setup::new()
        .yaml("port: ${P:-}\nhost: \"\"\npostgres: { url: \"${U}\" }\nsentry: { dsn: \"${S:-}\" }\ncleanup: { rules: [] }")
        .env(&[("U", ""), ("TASKCAST_LOG_LEVEL", ""), ("TASKCAST_REDIS_URL", ""), ("SENTRY_DSN", "")]);
    let config = setup.load();
    assert_eq!((config.port, config.host.as_str()), (3721, "0.0.0.0"));
    assert_eq!(config.storage, Storage::Memory);
}

#[test]
fn a_mode_that_does_not_exist_is_refused() {
    let with = |mode: &str| Setup::new().yaml(&format!("auth: {{ mode: {mode} }}"));
    assert_eq!(with("none").load().auth, AuthSettings::None);
    with("nnoe").refused(&["`auth.mode`", "`nnoe` is not one of `none`, `jwt`, `custom`"]);
    with("\"${M:-}\"").refused(&["`auth.mode`", "empty"]);
    Setup::new().env(&[("TASKCAST_AUTH_MODE", "JWT")]).refused(&["TASKCAST_AUTH_MODE", "`JWT`"]);
    Setup::new().env(&[("TASKCAST_AUTH_MODE", "")]).refused(&["TASKCAST_AUTH_MODE", "empty"]);
}

#[test]
fn anything_with_redis_is_refused_with_the_nearest_supported_shape() {
    Setup::new().yaml("redis: { prefix: x }").refused(&[
        "taskcast.config.yaml",
        "`redis`",
        "not supported in this version",
        "nearest supported shape",
    ]);
    for name in ["TASKCAST_REDIS_URL", "TASKCAST_REDIS_URL_FILE", "TASKCAST_REDIS__PREFIX"] {
        let error = Setup::new().env(&[(name, "canary")]).refused(&[
            name,
            "not supported in this version",
            "nearest supported shape",
        ]);
        assert!(!error.contains("canary"), "{error}");
    }
}

#[test]
fn a_mistake_is_found_although_a_stronger_layer_covers_it() {
    Setup::new()
        .yaml("port: many")
        .env(&[("TASKCAST_PORT", "1")])
        .refused(&["taskcast.config.yaml", "`port`"]);
}

#[test]
fn variables_cover_lists_numbers_and_switches() {
    let setup = Setup::new().env(&[
        ("TASKCAST_CORS__ORIGINS", r#"["https://a.example", "http://localhost:5173"]"#),
        ("TASKCAST_LIMITS__EVENTS_PER_REQUEST", "5"),
        ("TASKCAST_POSTGRES__LISTEN", "false"),
        ("TASKCAST_LOG_LEVEL", "debug"),
    ]);
    let config = setup.load();
    let origins = ["https://a.example", "http://localhost:5173"].map(str::to_owned);
    assert_eq!(config.cors, CorsOrigins::List(origins.to_vec()));
    assert_eq!(config.limits.events_per_request, 5);
    assert!(!config.postgres.listen);
    assert_eq!(config.log_level, LogLevel::Debug);
    assert_eq!(Setup::new().env(&[("TASKCAST_CORS__ORIGINS", "*")]).load().cors, CorsOrigins::Any);
    Setup::new().env(&[("TASKCAST_CORS__ORIGINS", r#"["https://a.example/"]"#)]).refused(&[
        "TASKCAST_CORS__ORIGINS",
        "`cors.origins[0]`",
        "an origin",
    ]);
}

#[test]
fn unknown_variables_of_ours_warn() {
    let config = Setup::new().env(&[("TASKCAST_PROT", "1"), ("OTHER", "1")]).load();
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("TASKCAST_PROT"));
}

#[test]
fn the_port_that_kubernetes_injects_is_ignored_with_one_warning() {
    let setup = Setup::new().yaml("port: 81").env(&[
        ("TASKCAST_PORT", "tcp://10.0.0.1:3721"),
        ("TASKCAST_PORT_3721_TCP_ADDR", "10.0.0.1"),
        ("TASKCAST_SERVICE_HOST", "10.0.0.1"),
    ]);
    let config = setup.load();
    assert_eq!(config.port, 81);
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("TASKCAST_PORT=tcp://10.0.0.1:3721"));
}

#[test]
fn platform_variables_count_only_when_nothing_else_gives_the_value() {
    let platform = [("PORT", "82"), ("DATABASE_URL", "postgres://platform/x")];
    let config = Setup::new().env(&platform).load();
    assert_eq!(config.port, 82);
    assert_eq!(config.sources.port, variable("PORT"));
    assert_eq!(config.storage, postgres("postgres://platform/x"));
    assert_eq!(config.sources.storage, variable("DATABASE_URL"));

    let setup =
        Setup::new().yaml("port: 3721\npostgres: { url: postgres://file/x }").env(&platform);
    let config = setup.load();
    assert_eq!(config.port, 3721);
    assert_eq!(config.storage, postgres("postgres://file/x"));
    let file = Source::File(setup.path("taskcast.config.yaml"));
    assert_eq!((&config.sources.port, &config.sources.storage), (&file, &file));

    let config = Setup::new().env(&platform).purpose(Purpose::Dev).load();
    assert_eq!((config.port, config.host.as_str()), (3721, "127.0.0.1"));
    assert_eq!(config.storage, Storage::Memory);
    assert_eq!(config.sources.storage, Source::Default);
}

#[test]
fn a_platform_database_of_another_kind_is_refused() {
    let error = Setup::new()
        .env(&[("DATABASE_URL", "mysql://u:canary@h/x")])
        .refused(&["DATABASE_URL", "postgres://"]);
    assert!(!error.contains("canary"), "{error}");
}

#[test]
fn secrets_are_read_from_files() {
    let setup = Setup::new().file("secret", "postgres://secret/x\n").env(&[
        ("TASKCAST_POSTGRES_URL_FILE", "secret"),
        ("TASKCAST_POSTGRES_DIRECT_URL", "postgres://direct/x"),
    ]);
    let config = setup.load();
    let direct_url = Some(url("postgres://direct/x"));
    let expected = Storage::Postgres { url: url("postgres://secret/x"), direct_url };
    assert_eq!(config.storage, expected);
    assert_eq!(config.sources.storage, variable("TASKCAST_POSTGRES_URL_FILE"));
    Setup::new().env(&[("TASKCAST_POSTGRES_URL_FILE", "gone")]).refused(&[
        "TASKCAST_POSTGRES_URL_FILE",
        "gone",
        "`postgres.url`",
    ]);
}

#[test]
fn two_variables_for_one_key_are_refused() {
    Setup::new()
        .env(&[
            ("TASKCAST_POSTGRES_URL", "postgres://a/x"),
            ("TASKCAST_POSTGRES__URL", "postgres://b/x"),
        ])
        .refused(&["TASKCAST_POSTGRES_URL", "TASKCAST_POSTGRES__URL", "`postgres.url`"]);
}

#[test]
fn adapters_may_name_the_supported_shapes() {
    for text in [
        "adapters: { shortTerm: { provider: postgres, url: postgres://a/x } }",
        "adapters: { shortTermStore: { provider: postgres }, broadcast: { provider: postgres } }\npostgres: { url: postgres://a/x }",
        "adapters: { broadcast: { url: postgres://a/x } }",
    ] {
        let config = Setup::new().yaml(text).load();
        assert_eq!(config.storage, postgres("postgres://a/x"), "{text}");
    }
    let memory = "adapters: { shortTerm: { provider: memory } }\npostgres: { url: postgres://a/x }";
    let config = Setup::new().yaml(memory).load();
    assert_eq!(config.storage, Storage::Memory);
    assert!(config.warnings[0].contains("taskcast.config.yaml"), "{:?}", config.warnings);
    assert_ne!(config.sources.storage, Source::Default);
}

#[test]
fn other_shapes_are_refused_with_the_nearest_supported_one() {
    for (text, key) in [
        (
            "adapters: { broadcast: { provider: redis, url: redis://r } }",
            "`adapters.broadcast.provider`",
        ),
        ("adapters: { shortTerm: { url: redis://r } }", "`adapters.shortTerm.url`"),
        (
            "adapters: { longTerm: { provider: postgres, url: postgres://a/x } }",
            "`adapters.longTerm.provider`",
        ),
        (
            "adapters: { broadcast: { provider: memory }, shortTerm: { url: postgres://a/x } }",
            "`adapters.broadcast.provider`",
        ),
        (
            "adapters: { broadcast: { url: postgres://a/x }, shortTerm: { provider: memory } }",
            "`adapters.broadcast.url`",
        ),
    ] {
        Setup::new().yaml(text).refused(&["taskcast.config.yaml", key, "nearest supported shape"]);
    }
    Setup::new().yaml("adapters: { shortTerm: { provider: sqlite } }").refused(&[
        "`adapters.shortTerm.provider`",
        "`sqlite`",
        "`memory`",
    ]);
    Setup::new()
        .yaml("adapters: { shortTerm: { provider: postgres } }")
        .refused(&["`adapters.shortTerm.provider`", "TASKCAST_POSTGRES_URL"]);
    Setup::new()
        .yaml("adapters: { shortTerm: { provider: memory }, shortTermStore: { provider: memory } }")
        .refused(&["`adapters.shortTermStore`"]);
}

#[test]
fn the_strongest_source_of_a_database_wins_and_a_tie_is_refused() {
    let file = "adapters: { shortTerm: { provider: postgres, url: postgres://file/x } }";
    let setup = Setup::new()
        .yaml(file)
        .flags(Flags { postgres_url: Some("postgres://flag/x".to_owned()), ..Flags::default() });
    let config = setup.load();
    assert_eq!(config.storage, postgres("postgres://flag/x"));
    assert_eq!(config.sources.storage, Source::Flag("--postgres-url".to_owned()));

    Setup::new()
        .yaml(&format!("{file}\npostgres: {{ url: postgres://other/x }}"))
        .refused(&["`adapters.shortTerm.url`", "`postgres.url`"]);
}

#[test]
fn a_url_of_another_kind_is_refused_without_showing_it() {
    let error = Setup::new().env(&[("TASKCAST_POSTGRES_URL", "mysql://u:canary@h/x")]).refused(&[
        "TASKCAST_POSTGRES_URL",
        "`postgres.url`",
        "postgres://",
    ]);
    assert!(!error.contains("canary"), "{error}");
}

#[test]
fn printing_a_configuration_shows_no_password() {
    let config = Setup::new().env(&[("TASKCAST_POSTGRES_URL", "postgres://u:canary@h/x")]).load();
    assert!(!format!("{config:?}").contains("canary"));
}

#[test]
fn relative_paths_are_taken_from_the_working_directory() {
    let setup = Setup::new().file("c.yaml", "port: 5").asking_for("c.yaml");
    assert_eq!(setup.load().sources.port, Source::File(setup.path("c.yaml")));
}
