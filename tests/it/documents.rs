//! The documents against what they point at and what they tell to type.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::Value;

use crate::support::Backend;

/// Documents at the root that people read.
const AT_THE_ROOT: [&str; 6] =
    ["AGENT.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "README.md", "README.zh.md"];

/// Documents whose commands are typed from top to bottom on a fresh server.
const TYPED: [&str; 5] =
    ["README.md", "README.zh.md", "AGENT.md", "docs/getting-started.md", "docs/skill/taskcast.md"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(document: &str) -> String {
    fs::read_to_string(root().join(document)).unwrap_or_else(|error| panic!("{document}: {error}"))
}

/// Returns every document, as a path from the root.
fn documents() -> Vec<String> {
    fn collect(directory: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                into.push(path);
            }
        }
    }
    let mut files = Vec::new();
    collect(&root().join("docs"), &mut files);
    let below = files.iter().map(|file| file.strip_prefix(root()).unwrap().display().to_string());
    let mut documents: Vec<String> =
        AT_THE_ROOT.iter().map(|document| (*document).to_owned()).chain(below).collect();
    documents.sort();
    documents
}

/// Returns the lines outside of fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// Returns the targets of a document's links.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        // A link's text may be code; its target never is.
        for rest in line.split("](").skip(1) {
            let target = rest.split([')', ' ']).next().unwrap_or_default();
            found.push(target.to_owned());
        }
    }
    found
}

/// Returns the anchors of a document's headings, as code hosts make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    for line in prose(text).filter(|line| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim();
        let heading = heading.replace('`', "").to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let slug: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let count = seen.entry(slug.clone()).or_default();
        anchors.insert(if *count == 0 { slug.clone() } else { format!("{slug}-{count}") });
        *count += 1;
    }
    anchors
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for document in documents() {
        let text = read(&document);
        for target in links(&text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            checked += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let file = if path.is_empty() {
                root().join(&document)
            } else {
                root().join(&document).parent().unwrap().join(path)
            };
            if !file.exists() {
                wrong.push(format!("{document}: {target}: there is no such file"));
            } else if !anchor.is_empty()
                && !anchors(&fs::read_to_string(&file).unwrap()).contains(anchor)
            {
                wrong.push(format!("{document}: {target}: there is no such heading"));
            }
        }
    }
    assert!(checked > 30, "only {checked} links were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_page_can_be_reached_from_the_readme() {
    let mut reached = BTreeSet::from(["README.md".to_owned()]);
    let mut left = vec!["README.md".to_owned()];
    while let Some(document) = left.pop() {
        for target in links(&read(&document)) {
            let path = target.split('#').next().unwrap_or_default();
            let Ok(file) = root().join(&document).parent().unwrap().join(path).canonicalize()
            else {
                continue;
            };
            let Ok(file) = file.strip_prefix(root().canonicalize().unwrap()).map(PathBuf::from)
            else {
                continue;
            };
            let is_page = file.extension().is_some_and(|extension| extension == "md");
            let name = file.display().to_string();
            if is_page && reached.insert(name.clone()) {
                left.push(name);
            }
        }
    }
    let missing: Vec<_> =
        documents().into_iter().filter(|document| !reached.contains(document)).collect();
    assert!(missing.is_empty(), "nothing leads to {missing:?}");
}

/// Returns the code of a document without comments and empty lines.
fn code(text: &str) -> Vec<String> {
    let mut is_code = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if is_code || line.starts_with("    ") {
            let line = line.split(" # ").next().unwrap_or_default().trim();
            if !line.is_empty() && !line.starts_with('#') {
                lines.push(line.to_owned());
            }
        }
    }
    lines
}

#[test]
fn the_readme_says_the_same_in_both_languages() {
    let (english, chinese) = (read("README.md"), read("README.zh.md"));
    assert_eq!(code(&english), code(&chinese));
    let pages = |text: &str| -> BTreeSet<String> {
        links(text).into_iter().filter(|target| !target.starts_with("README")).collect()
    };
    assert_eq!(pages(&english), pages(&chinese));
    let headings = |text: &str| prose(text).filter(|line| line.starts_with('#')).count();
    assert_eq!(headings(&english), headings(&chinese));
}

/// A request that a document tells to type.
#[derive(Debug, Default)]
struct Typed {
    method: Option<String>,
    url: String,
    headers: Vec<(String, String)>,
    body: Option<String>,
    is_stream: bool,
}

/// Splits a command the way a shell does, as far as documents use it.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote, mut is_word) = (String::new(), None, false);
    for c in command.chars() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\'' | '"', None) => {
                quote = Some(c);
                is_word = true;
            }
            (' ', None) => {
                if std::mem::take(&mut is_word) {
                    words.push(std::mem::take(&mut word));
                }
            }
            (c, _) => {
                word.push(c);
                is_word = true;
            }
        }
    }
    if is_word {
        words.push(word);
    }
    words
}

/// Returns the requests a document makes with curl to a server at home.
fn typed(text: &str) -> Vec<Typed> {
    let joined = code(text).join("\n").replace("\\\n", " ");
    let mut requests = Vec::new();
    for line in joined.lines().filter(|line| line.starts_with("curl ")) {
        let mut request = Typed::default();
        let mut words = words(line).into_iter().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "-X" => request.method = words.next(),
                "-H" => {
                    let header = words.next().unwrap();
                    let (name, value) = header.split_once(": ").unwrap();
                    request.headers.push((name.to_owned(), value.to_owned()));
                }
                "-d" => request.body = words.next(),
                "-N" | "-sN" => request.is_stream = true,
                "-s" | "-i" => {}
                url => url.trim_start_matches("http://").clone_into(&mut request.url),
            }
        }
        if request.url.starts_with("localhost:3721") {
            requests.push(request);
        }
    }
    requests
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_requests_shown_in_the_documents_are_accepted_as_they_stand() {
    for document in TYPED {
        let server = Backend::Memory.start().await;
        // Where a document says so, the reader's own task.
        server.create(r#"{"id":"mine"}"#).await;
        let requests = typed(&read(document));
        assert!(!requests.is_empty(), "{document} shows no request");
        for request in requests {
            let path = request.url.trim_start_matches("localhost:3721").replace("$TASK", "mine");
            let method = match (&request.method, &request.body) {
                (Some(method), _) => Method::from_bytes(method.as_bytes()).unwrap(),
                (None, Some(_)) => Method::POST,
                (None, None) => Method::GET,
            };
            let mut sent = server.request(method, &path);
            for (name, value) in &request.headers {
                sent = sent.header(name, value);
            }
            if let Some(body) = &request.body {
                serde_json::from_str::<Value>(body)
                    .unwrap_or_else(|error| panic!("{document}: {error} in {body}"));
                sent = sent.body(body.clone());
            }
            if request.is_stream {
                drop(server.open(sent).await);
            } else {
                let reply = server.send(sent).await;
                assert!(reply.status < 300, "{document}: {request:?}: {}", reply.text);
            }
        }
    }
}

#[test]
fn the_checks_see_what_they_look_for() {
    let text = "# One `two`: three\n[a](x.md#b) and [`c`](d.md)\n```sh\n[not](a.link)\n```\n## One two three\n";
    assert_eq!(links(text), ["x.md#b", "d.md"]);
    let expected = ["one-two-three", "one-two-three-1"].map(str::to_owned);
    assert_eq!(anchors(text), BTreeSet::from(expected));
    let shown =
        "    curl -s localhost:3721/tasks -H 'A: b' \\\n      -d '{\"a\": \"b c\"}'   # why\n";
    let requests = typed(shown);
    assert_eq!(requests[0].url, "localhost:3721/tasks");
    assert_eq!(requests[0].headers, [("A".to_owned(), "b".to_owned())]);
    assert_eq!(requests[0].body.as_deref(), Some(r#"{"a": "b c"}"#));
}

#[test]
fn the_chat_page_of_the_documentation_is_the_example() {
    let document = read("docs/chat.md");
    for file in ["follow.js", "index.html", "server.mjs"] {
        let code = read(&format!("examples/chat/{file}"));
        assert!(document.contains(&code), "docs/chat.md does not show {file} as it is");
    }
}
