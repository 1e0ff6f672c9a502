//! Compares the numbered rules of the documentation with the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The pages with rules: the letter of their numbers, and how many there are at
/// least, so that a page that is no longer read is noticed.
const PAGES: [(&str, char, usize); 4] = [
    ("docs/http.md", 'H', 41),
    ("docs/sse.md", 'S', 41),
    ("docs/authentication.md", 'A', 24),
    ("docs/webhooks.md", 'W', 26),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the rules a page defines, in the order they stand in.
fn rules_of(page: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let number = |line: &str| Some(line.strip_prefix("**")?.split_once(".**")?.0.to_owned());
    text.lines().filter_map(number).collect()
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The cases of a file: their names, and the rules each says it checks.
fn cases(source: &str) -> BTreeMap<String, Vec<String>> {
    let listed = |name: &str| {
        let list = source.split_once("on_every_store![").and_then(|(_, rest)| rest.split_once(']'));
        list.is_some_and(|(list, _)| list.split(',').any(|case| case.trim() == name))
    };
    let mut cases = BTreeMap::new();
    let mut rules = Vec::new();
    for line in source.lines() {
        if let Some(named) = line.strip_prefix("/// Rules: ") {
            rules = named.split(',').map(|rule| rule.trim().to_owned()).collect();
        } else if let Some(rest) = line.strip_prefix("async fn ") {
            let name = rest.split_once('(').unwrap().0;
            if listed(name) || !rules.is_empty() {
                assert!(listed(name), "{name} names rules but is in no list, so it never runs");
                cases.insert(name.to_owned(), std::mem::take(&mut rules));
            }
        }
    }
    cases
}

#[test]
fn every_rule_has_a_test_and_every_test_names_known_rules() {
    let defined: Vec<String> = PAGES.into_iter().flat_map(|(page, ..)| rules_of(page)).collect();
    let known: BTreeSet<&String> = defined.iter().collect();
    assert_eq!(known.len(), defined.len(), "a rule is defined twice");
    let mut checked = BTreeSet::new();
    let mut wrong = Vec::new();
    let folders = ["tests/it/http", "tests/it/auth", "tests/it/webhooks"];
    for file in folders.iter().flat_map(|folder| rust_files(&root().join(folder))) {
        let shown = file.strip_prefix(root()).unwrap().display().to_string();
        for (name, rules) in cases(&fs::read_to_string(&file).unwrap()) {
            if rules.is_empty() {
                wrong.push(format!("{shown}: {name} names no rule"));
            }
            for rule in rules {
                if !known.contains(&rule) {
                    wrong.push(format!("{shown}: {name} names {rule}, which is no rule"));
                }
                checked.insert(rule);
            }
        }
    }
    let untested = defined.iter().filter(|rule| !checked.contains(*rule));
    wrong.extend(untested.map(|rule| format!("no test names {rule}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn rules_are_numbered_in_order() {
    for (page, letter, least) in PAGES {
        let rules = rules_of(page);
        let expected: Vec<_> =
            (1..=rules.len()).map(|number| format!("{letter}{number}")).collect();
        assert!(rules.len() >= least, "{page} has only {} rules", rules.len());
        assert_eq!(rules, expected, "{page}");
    }
}

#[test]
fn a_case_without_rules_and_one_outside_the_list_are_noticed() {
    let source = "on_every_store![\n    one,\n    two,\n];\n/// Rules: H1, S2\nasync fn one(b: Backend) {}\n\
                  async fn two(b: Backend) {}\nasync fn helper() {}\n";
    let found = cases(source);
    assert_eq!(found["one"], ["H1", "S2"]);
    assert!(found["two"].is_empty() && !found.contains_key("helper"));
    let unlisted = "on_every_store![one];\n/// Rules: H1\nasync fn two(b: Backend) {}\n";
    assert!(std::panic::catch_unwind(|| cases(unlisted)).is_err());
}
