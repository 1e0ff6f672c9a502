//! The values in force, each with its origin, for a person to look at. Nothing
//! secret is among them.

use figment::Figment;
use figment::value::Value;
use serde_json::Value as Shown;

use super::Sources;
use super::error::Source;
use super::keys::KEYS;
use super::kind::Kind;
use super::layer::source_of;
use super::schema::{self, Node, Section};
use super::secret::{MASK, masked_url};
use super::storage::{DATABASE_URL, Storage};

/// A value in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its key, as in a file.
    pub key: &'static str,
    /// The value, secrets masked; null when there is none.
    pub value: Shown,
    /// Where it comes from.
    pub source: Source,
}

impl Setting {
    /// Takes the value apart into its leaves, each with the key it has in a
    /// list: `webhook.endpoints[0].url`.
    pub fn leaves(&self) -> Vec<(String, &Shown)> {
        let mut leaves = Vec::new();
        collect(self.key.to_owned(), &self.value, &mut leaves);
        leaves
    }
}

fn collect<'a>(key: String, value: &'a Shown, into: &mut Vec<(String, &'a Shown)>) {
    match value {
        Shown::Object(values) => {
            for (name, value) in values {
                collect(format!("{key}.{name}"), value, into);
            }
        }
        Shown::Array(items) if items.iter().any(Shown::is_object) => {
            for (position, item) in items.iter().enumerate() {
                collect(format!("{key}[{position}]"), item, into);
            }
        }
        _ => into.push((key, value)),
    }
}

/// Returns every value in force, in the order of the reference.
pub(super) fn settings(figment: &Figment, known: &Section) -> Vec<Setting> {
    KEYS.iter()
        .filter(|key| !key.is_in_a_list())
        .map(|key| {
            let value = figment.find_value(key.path).ok();
            let node = schema::find(known, key.path);
            Setting {
                key: key.path,
                value: value.zip(node).map_or(Shown::Null, |(value, node)| masked(&value, node)),
                source: source_of(figment, key.path),
            }
        })
        .collect()
}

/// Fills in what is decided from more than the key: the port and the database
/// may come from the platform, and the host depends on the purpose.
pub(super) fn complete(
    settings: &mut [Setting],
    port: u16,
    host: &str,
    storage: &Storage,
    sources: &Sources,
) {
    for setting in settings {
        match (setting.key, storage) {
            ("port", _) => {
                setting.value = Shown::from(port);
                setting.source = sources.port.clone();
            }
            ("host", _) => setting.value = Shown::from(host),
            ("postgres.url", Storage::Postgres { url, .. })
                if sources.storage == Source::Variable(DATABASE_URL.to_owned()) =>
            {
                setting.value = Shown::from(masked_url(url.expose()));
                setting.source = sources.storage.clone();
            }
            _ => {}
        }
    }
}

/// Turns a value into what may be shown of it.
fn masked(value: &Value, node: &Node) -> Shown {
    match (node, value) {
        (Node::Value(key), value) => masked_value(value, key.kind),
        (Node::Items(_, known), Value::Array(_, items)) => items
            .iter()
            .map(|item| item.as_dict().map_or(Shown::Null, |values| masked_section(values, known)))
            .collect(),
        (Node::Section(known), Value::Dict(_, values)) => masked_section(values, known),
        (Node::Items(..) | Node::Section(_), _) => Shown::Null,
    }
}

fn masked_section(values: &figment::value::Dict, known: &Section) -> Shown {
    let shown = values
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), masked(value, known.get(&**name)?))));
    Shown::Object(shown.collect())
}

fn masked_value(value: &Value, kind: Kind) -> Shown {
    match (kind, value) {
        (_, Value::Empty(..)) => Shown::Null,
        (Kind::List(entry) | Kind::OneOrMany(entry), Value::Array(_, entries)) => {
            entries.iter().map(|value| masked_value(value, *entry)).collect()
        }
        (Kind::StoreUrl | Kind::HttpUrl | Kind::Dsn, Value::String(_, url)) => {
            Shown::from(masked_url(url))
        }
        (kind, _) if kind.may_hold_a_secret() => Shown::from(MASK),
        (_, value) => serde_json::to_value(value).unwrap_or_else(|_| Shown::from(MASK)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Setup;

    fn shown(setup: &Setup) -> Vec<(String, String, String)> {
        let config = setup.load();
        let lines = config.settings.iter().flat_map(|setting| {
            let source = setting.source.to_string();
            setting
                .leaves()
                .into_iter()
                .map(move |(key, value)| (key, value.to_string(), source.clone()))
        });
        lines.collect()
    }

    fn line(lines: &[(String, String, String)], key: &str) -> (String, String) {
        let (_, value, source) =
            lines.iter().find(|(found, _, _)| found == key).unwrap_or_else(|| panic!("{key}"));
        (value.clone(), source.clone())
    }

    #[test]
    fn every_value_has_its_origin() {
        let setup = Setup::new()
            .yaml("limits: { tags: 7 }\nwebhook: { endpoints: [{ url: http://h, wrap: false }] }")
            .env(&[("TASKCAST_LOG_LEVEL", "warn"), ("PORT", "82")]);
        let lines = shown(&setup);
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(line(&lines, "logLevel"), pair("\"warn\"", "variable TASKCAST_LOG_LEVEL"));
        assert_eq!(line(&lines, "port"), pair("82", "variable PORT"));
        assert_eq!(line(&lines, "host"), pair("\"0.0.0.0\"", "default"));
        assert_eq!(line(&lines, "limits.nesting"), pair("64", "default"));
        assert_eq!(line(&lines, "postgres.url"), pair("null", "default"));
        for (key, value) in [("limits.tags", "7"), ("webhook.endpoints[0].wrap", "false")] {
            let (found, source) = line(&lines, key);
            assert_eq!(found, value);
            assert!(source.starts_with("file ") && source.ends_with("taskcast.config.yaml"));
        }
    }

    #[test]
    fn whatever_may_be_secret_is_masked() {
        let setup = Setup::new()
            .yaml(
                "
webhook: { endpoints: [{ url: \"https://u:canary@h/p?t=canary\", secret: canary }] }
auth: { jwt: { secret: canary, publicKey: canary }, custom: { url: \"https://u:canary@h\" } }
metrics: { token: canary }
sentry: { dsn: \"https://canary@o1.ingest.sentry.io/42\" }
adapters: { shortTerm: { url: \"postgres://u:canary@db/x?password=canary\" } }
",
            )
            .env(&[("TASKCAST_POSTGRES_DIRECT_URL", "postgres://u:ca@nary@db/x")]);
        let lines = shown(&setup);
        assert!(!format!("{lines:?}").contains("canary"), "{lines:?}");
        for (key, value) in [
            ("webhook.endpoints[0].url", "https://***@h/p?***"),
            ("webhook.endpoints[0].secret", "***"),
            ("auth.jwt.secret", "***"),
            ("auth.jwt.publicKey", "***"),
            ("auth.custom.url", "https://***@h"),
            ("metrics.token", "***"),
            ("sentry.dsn", "https://***@o1.ingest.sentry.io/42"),
            ("adapters.shortTerm.url", "postgres://***@db/x?***"),
            ("postgres.directUrl", "***"),
        ] {
            assert_eq!(line(&lines, key).0, format!("\"{value}\""), "{key}");
        }
        let platform = Setup::new().env(&[("DATABASE_URL", "postgres://u:canary@db/x")]);
        let (value, source) = line(&shown(&platform), "postgres.url");
        assert_eq!(value, "\"postgres://***@db/x\"");
        assert_eq!(source, "variable DATABASE_URL");
    }
}
