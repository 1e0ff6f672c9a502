//! The source against its own rules: who may name whom, how long a file may
//! be, where each outside library is at home, and what `sql/` holds.
//!
//! One crate means that the compiler does not enforce layers, so this does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which of our modules each part of the source may name. A part is a module
/// or, where a folder holds several layers, a path below it; the longest that
/// fits a file counts.
const ARROWS: &[(&str, &[&str])] = &[
    ("main", &["taskcast"]),
    ("lib", &[]),
    ("auth", &["auth", "domain", "tls"]),
    ("bench", &["bench"]),
    ("bench/postgres", &["bench", "store"]),
    (
        "cli",
        &["auth", "bench", "config", "domain", "local_postgres", "server", "store", "telemetry"],
    ),
    (
        "server",
        &[
            "auth",
            "config",
            "dispatcher",
            "domain",
            "engine",
            "hooks",
            "http",
            "maintenance",
            "observer",
            "sentry",
            "store",
            "supervisor",
            "webhooks",
        ],
    ),
    ("telemetry", &["config"]),
    ("supervisor", &["hooks"]),
    ("hooks", &["domain"]),
    ("metrics", &["domain", "hooks", "telemetry"]),
    ("observer", &["domain", "hooks", "metrics", "store", "webhooks"]),
    ("sentry", &["domain", "hooks", "tls"]),
    ("tls", &[]),
    ("config", &["config", "domain"]),
    (
        "http",
        &[
            "auth",
            "dispatcher",
            "domain",
            "engine",
            "hooks",
            "http",
            "metrics",
            "observer",
            "store",
        ],
    ),
    ("maintenance", &["domain", "engine", "metrics", "store", "supervisor"]),
    (
        "dispatcher",
        &[
            "dispatcher",
            "domain",
            "failpoints",
            "hooks",
            "metrics",
            "observer",
            "store",
            "supervisor",
        ],
    ),
    ("engine", &["domain", "metrics", "store"]),
    ("webhooks", &["domain", "store", "tls"]),
    ("store", &["domain"]),
    ("store/open", &["store", "supervisor"]),
    ("store/memory", &["domain", "store"]),
    ("store/postgres", &["domain", "store", "supervisor"]),
    ("domain", &["domain"]),
    ("local_postgres", &[]),
    ("failpoints", &["failpoints"]),
];

/// Parts that name nothing of ours and no waiting, storing or serving library.
const PURE: [&str; 1] = ["domain"];

/// Where an outside library, or a part of one, may be named. Everything else
/// in the list of a library is a door that was left open.
const AT_HOME: &[(&str, &[&str])] = &[
    ("sqlx", &["store/postgres", "local_postgres", "bench/postgres"]),
    ("axum", &["http", "server"]),
    ("tower_http", &["http", "server"]),
    ("hyper_rustls", &["auth", "sentry", "tls", "webhooks"]),
    ("hyper_util", &["auth", "http", "sentry", "server", "tls", "webhooks"]),
    ("rustls", &["auth", "sentry", "tls", "webhooks"]),
    ("clap", &["cli", "main"]),
    ("figment", &["config"]),
    ("tracing_appender", &["telemetry"]),
    ("tracing_subscriber", &["telemetry"]),
    ("anyhow", &["cli", "main", "server"]),
    ("jsonwebtoken", &["auth"]),
    ("rustix", &["bench", "local_postgres", "cli", "server"]),
    ("hdrhistogram", &["bench"]),
    ("httparse", &["bench"]),
    ("indicatif", &["cli"]),
    ("prometheus_client", &["metrics"]),
    ("fail", &["failpoints"]),
];

/// Files longer than this are two files.
const LONGEST_FILE: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(directory: &str, extension: &str) -> Vec<PathBuf> {
    fn collect(directory: &Path, extension: &str, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, extension, into);
            } else if path.extension().is_some_and(|found| found == extension) {
                into.push(path);
            }
        }
    }
    let mut files = Vec::new();
    collect(&root().join(directory), extension, &mut files);
    files.sort();
    files
}

/// A source file without comments and without its tests.
struct Source {
    /// Path below `src/`, without `.rs` and without a final `/mod`.
    module: String,
    code: String,
}

fn sources() -> Vec<Source> {
    let source = root().join("src");
    files_below("src", "rs")
        .into_iter()
        .map(|file| {
            let module =
                file.strip_prefix(&source).unwrap().with_extension("").display().to_string();
            let module = module.strip_suffix("/mod").unwrap_or(&module).to_owned();
            Source { module, code: code_of(&fs::read_to_string(file).unwrap()) }
        })
        .filter(|source| !source.module.split('/').any(|part| part == "tests"))
        .collect()
}

/// Returns what is left of a file without comments, strings and tests.
fn code_of(text: &str) -> String {
    let before_tests = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = before_tests.lines().map(|line| line.split("//").next().unwrap_or_default());
    let mut code = String::new();
    for line in lines {
        // Every second piece between quotes is text; a path is never in one.
        code.extend(line.split('"').step_by(2));
        code.push('\n');
    }
    code
}

/// Returns the part of the table a module belongs to.
fn part_of(module: &str) -> &'static str {
    ARROWS
        .iter()
        .map(|(part, _)| *part)
        .filter(|part| module == *part || module.starts_with(&format!("{part}/")))
        .max_by_key(|part| part.len())
        .unwrap_or_else(|| panic!("src/{module}.rs belongs to no part of the table"))
}

fn identifier(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// Returns the paths named after `crate::`, with braces resolved.
fn named_paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for rest in code.split("crate::").skip(1) {
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let end = group.find(|c| {
                depth += i32::from(c == '{') - i32::from(c == '}');
                depth < 0
            });
            let mut start = true;
            let mut depth = 0;
            let group = &group[..end.unwrap_or(group.len())];
            for (at, c) in group.char_indices() {
                if start && (c.is_alphabetic() || c == '_') {
                    paths.push(group[at..].split([',', '}']).next().unwrap().trim().to_owned());
                    start = false;
                }
                depth += i32::from(c == '{') - i32::from(c == '}');
                start |= c == ',' && depth == 0;
            }
        } else {
            paths.push(
                rest.split([';', '(', ')', ',', '>', '<', ' ', '\n']).next().unwrap().to_owned(),
            );
        }
    }
    paths
}

#[test]
fn modules_name_only_what_their_layer_may_name() {
    let mut wrong = Vec::new();
    for Source { module, code } in sources() {
        let allowed = ARROWS.iter().find(|(part, _)| *part == part_of(&module)).unwrap().1;
        for path in named_paths(&code) {
            let named = identifier(&path);
            if !allowed.contains(&named) {
                wrong.push(format!("src/{module}.rs names crate::{named}"));
            }
        }
        // Climbing to the root by `super` would be an arrow nobody sees.
        let depth = module.split('/').count();
        if code.contains(&"super::".repeat(depth)) && part_of(&module) != "lib" && depth > 1 {
            wrong.push(format!("src/{module}.rs climbs to the crate root by super::"));
        }
        let single = module.split('/').next().unwrap();
        if depth == 1 && code.contains("super::") {
            wrong.push(format!("src/{single}.rs names another module by super::"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_web_layer_knows_of_storage_only_its_failures() {
    for Source { module, code } in
        sources().iter().filter(|source| part_of(&source.module) == "http")
    {
        for path in named_paths(code).iter().filter(|path| identifier(path) == "store") {
            assert!(path.starts_with("store::StoreError"), "src/{module}.rs names crate::{path}");
        }
    }
}

#[test]
fn adapters_are_named_where_stores_are_opened_and_nowhere_else() {
    // Migrations are a matter of Postgres alone, and so is its configuration.
    // What its statements cost is measured past every port.
    let others = ["cli/migrate", "server", "store"];
    for Source { module, code } in sources() {
        let is_beside = ["store/", "bench/postgres"].iter().any(|place| module.starts_with(place));
        if is_beside || others.contains(&module.as_str()) {
            continue;
        }
        for adapter in ["store::memory", "store::postgres", "MemoryStore", "PostgresStore"] {
            assert!(!code.contains(adapter), "src/{module}.rs names {adapter}");
        }
    }
    for Source { module, code } in sources() {
        if module.starts_with("store/memory") {
            assert!(!code.contains("postgres"), "src/{module}.rs names the other adapter");
        }
        if module.starts_with("store/postgres") {
            assert!(!code.contains("memory::"), "src/{module}.rs names the other adapter");
        }
    }
}

#[test]
fn libraries_are_named_where_they_are_at_home() {
    let mut wrong = Vec::new();
    for Source { module, code } in sources() {
        let part = part_of(&module);
        for (library, homes) in AT_HOME {
            let at_home = homes.contains(&part) || homes.iter().any(|home| module == *home);
            if !at_home && code.contains(&format!("{library}::")) {
                wrong.push(format!("src/{module}.rs names {library}"));
            }
        }
        if PURE.contains(&part) {
            for library in ["tokio", "tracing", "axum", "sqlx", "rand", "async_trait"] {
                if code.contains(&format!("{library}::")) {
                    wrong.push(format!("src/{module}.rs names {library}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn ambient_inputs_stay_where_they_are_read() {
    let allowed: [(&str, &[&str]); 4] = [
        ("env::var", &["config/env"]),
        ("println!", &[]),
        ("tokio::spawn", &["supervisor", "cli/listen"]),
        ("SystemTime::now", &["store/clock", "http/fresh", "cli/dev"]),
    ];
    for Source { module, code } in sources() {
        for (call, places) in allowed {
            assert!(
                !code.contains(call) || places.contains(&module.as_str()),
                "src/{module}.rs uses {call}"
            );
        }
        if part_of(&module) == "domain" {
            assert!(!code.contains("::now()"), "src/{module}.rs reads a clock");
        }
    }
}

#[test]
fn no_file_outgrows_the_budget() {
    let files = ["src", "tests"].into_iter().flat_map(|directory| files_below(directory, "rs"));
    for file in files {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(
            lines <= LONGEST_FILE,
            "{} has {lines} lines",
            file.strip_prefix(root()).unwrap().display()
        );
    }
}

#[test]
fn every_statement_is_used_and_every_folder_is_known() {
    let code: String =
        files_below("src", "rs").iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let mut folders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files_below("sql", "sql") {
        let path = file.strip_prefix(root()).unwrap().display().to_string();
        assert!(code.contains(&format!("\"{path}\"")), "{path} is used nowhere");
        let parts: Vec<&str> = path.trim_end_matches(".sql").split('/').collect();
        let ["sql", folder, operation] = parts[..] else {
            panic!("{path} should be sql/<folder>/<operation>.sql")
        };
        assert!(operation.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{path}");
        folders.entry(folder.to_owned()).or_default().insert(operation.to_owned());
    }
    assert!(!folders.is_empty());
    for file in code.split("\"sql/").skip(1) {
        let file = file.split('"').next().unwrap();
        assert!(root().join("sql").join(file).is_file(), "sql/{file} is not there");
    }
    // A folder is named after the port or the part of the adapter it serves,
    // and a statement after the operation that runs it.
    for (folder, operations) in folders {
        for operation in operations {
            let path = format!("sql/{folder}/{operation}.sql");
            let home = if folder == "bench" { "src/bench/postgres" } else { "src/store/postgres" };
            let user = files_below(home, "rs")
                .into_iter()
                .map(|file| fs::read_to_string(file).unwrap())
                .find(|code| code.contains(&path))
                .unwrap_or_else(|| panic!("{path} is used outside the adapter"));
            let words: Vec<&str> = user.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            let verb = operation.split('_').next().unwrap();
            let named = words.iter().any(|word| {
                *word == operation || word.split('_').any(|part| part.starts_with(verb))
            });
            assert!(named, "{path} is named after nothing in the file that runs it");
        }
    }
}

#[test]
fn statements_stand_in_sql_files_alone() {
    for Source { module, .. } in sources() {
        if !["store/postgres", "bench/postgres"].iter().any(|place| module.starts_with(place)) {
            continue;
        }
        let file = [format!("src/{module}.rs"), format!("src/{module}/mod.rs")]
            .into_iter()
            .find_map(|file| fs::read_to_string(root().join(file)).ok())
            .unwrap();
        let before_tests = file.split("#[cfg(test)]").next().unwrap_or_default();
        for verb in ["\"SELECT ", "\"INSERT INTO", "\"UPDATE ", "\"DELETE FROM"] {
            // A list is built from its filters; everything else is checked text.
            assert!(!before_tests.contains(verb), "src/{module}.rs contains {verb}");
        }
    }
}

#[test]
fn named_paths_are_found_in_every_spelling() {
    let code =
        "use crate::a::B;\nuse crate::{c::{D, E}, f};\nfn x(y: &crate::g::H) -> crate::i::J {}\n";
    let found: Vec<_> = named_paths(code).iter().map(|path| identifier(path).to_owned()).collect();
    assert_eq!(found, ["a", "c", "f", "g", "i"]);
}
