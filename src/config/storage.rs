//! Which storage the configuration asks for.
//!
//! The seven combinations that make sense are listed in the documentation; the
//! ones this version has are memory and Postgres. Everything else refuses to
//! start: a server that quietly kept less than it was told to would lose data.

use figment::Figment;

use super::document::{AdapterSection, Document, understood};
use super::env::Environment;
use super::error::{ConfigError, Source};
use super::layer::{refuse, source_of};
use super::secret::SecretUrl;

/// Where tasks and events live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// In this process; gone when it ends.
    Memory,
    /// In Postgres, which also carries the wake-ups between instances.
    Postgres {
        /// The database.
        url: SecretUrl,
        /// The same database without a pooler in between, for LISTEN and
        /// migrations, where it differs.
        direct_url: Option<SecretUrl>,
    },
}

impl Storage {
    /// Returns the URL for what needs a session of its own, if there is one.
    pub fn direct_url(&self) -> Option<&SecretUrl> {
        match self {
            Self::Memory => None,
            Self::Postgres { url, direct_url } => Some(direct_url.as_ref().unwrap_or(url)),
        }
    }
}

/// What the storage was resolved to.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) storage: Storage,
    /// What decided: the URL's source for Postgres, the source of the adapter
    /// key or [`Source::Default`] for memory.
    pub(super) source: Source,
    pub(super) warnings: Vec<String>,
}

/// The providers that exist, in this version or a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Provider {
    Memory,
    Postgres,
    Redis,
}

/// The variable in which platforms give a database.
pub(super) const DATABASE_URL: &str = "DATABASE_URL";

const BROADCAST: &str = "adapters.broadcast";
const SHORT_TERM: &str = "adapters.shortTerm";
const LONG_TERM: &str = "adapters.longTerm";

const NEAREST: &str = "the nearest supported shape is Postgres for everything: \
    `adapters.shortTerm.provider: postgres` with `postgres.url`, and neither `adapters.broadcast` \
    nor `adapters.longTerm`";

/// Why anything with Redis is refused.
pub(super) fn without_redis() -> String {
    format!("Redis is not supported in this version; {NEAREST}")
}

/// Decides the storage. `fallback` is the environment whose `DATABASE_URL`
/// counts when nothing of ours names a database.
pub(super) fn resolve(
    figment: &Figment,
    document: &Document,
    fallback: Option<&Environment>,
) -> Result<Resolved, ConfigError> {
    let adapters = &document.adapters;
    let broadcast = provider(figment, BROADCAST, &adapters.broadcast)?;
    let short_term = provider(figment, SHORT_TERM, &adapters.short_term)?;
    let long_term = provider(figment, LONG_TERM, &adapters.long_term)?;
    refuse_redis(
        figment,
        [(BROADCAST, broadcast), (SHORT_TERM, short_term), (LONG_TERM, long_term)],
    )?;
    if long_term.is_some() {
        let reason =
            format!("an archive beside the store is not supported in this version; {NEAREST}");
        return Err(blame(figment, LONG_TERM, reason));
    }

    let url = find_url(figment, document, fallback)?;
    let store = match (short_term, broadcast) {
        (Some(store), _) => store,
        (None, Some(Provider::Postgres)) => Provider::Postgres,
        (None, _) if url.is_some() => Provider::Postgres,
        (None, _) => Provider::Memory,
    };
    match (store, broadcast) {
        (Provider::Memory, None | Some(Provider::Memory)) => {
            Ok(memory(figment, url, short_term.is_some()))
        }
        (Provider::Postgres, None | Some(Provider::Postgres)) => {
            let (url, source) = url.ok_or_else(|| {
                let key = if short_term.is_some() { SHORT_TERM } else { BROADCAST };
                blame(
                    figment,
                    key,
                    "Postgres needs a URL; set TASKCAST_POSTGRES_URL, `postgres.url` or --postgres-url",
                )
            })?;
            let direct_url = document.postgres.direct_url.as_deref();
            let direct_url =
                direct_url.map(|url| parse(figment, "postgres.directUrl", url)).transpose()?;
            Ok(Resolved {
                storage: Storage::Postgres { url, direct_url },
                source,
                warnings: Vec::new(),
            })
        }
        (_, _) => {
            let reason =
                format!("store and broadcast of different kinds are not supported; {NEAREST}");
            Err(blame(figment, BROADCAST, reason))
        }
    }
}

/// Resolves to memory, saying so when a database was given for nothing.
fn memory(figment: &Figment, url: Option<(SecretUrl, Source)>, by_short_term: bool) -> Resolved {
    let key = if by_short_term { SHORT_TERM } else { BROADCAST };
    // A `DATABASE_URL` is often meant for another program, so it is no reason
    // to wonder.
    let ignored = url.filter(|(_, source)| *source != Source::Variable(DATABASE_URL.to_owned()));
    Resolved {
        storage: Storage::Memory,
        source: source_of_adapter(figment, key),
        warnings: ignored
            .map(|(_, source)| {
                format!(
                    "the Postgres URL of {source} is not used, because `adapters` asks for memory"
                )
            })
            .into_iter()
            .collect(),
    }
}

/// Reads the provider of an adapter: the one it names, else the one that the
/// scheme of its URL implies.
fn provider(
    figment: &Figment,
    key: &str,
    adapter: &AdapterSection,
) -> Result<Option<Provider>, ConfigError> {
    let known = |name: &str| match name {
        "memory" => Some(Provider::Memory),
        "postgres" | "postgresql" => Some(Provider::Postgres),
        "redis" | "rediss" => Some(Provider::Redis),
        _ => None,
    };
    if let Some(name) = &adapter.provider {
        return understood(known(name)).map(Some);
    }
    let Some(url) = &adapter.url else {
        return Ok(None);
    };
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    scheme
        .and_then(known)
        .map(Some)
        .ok_or_else(|| blame(figment, key, "the URL fits no provider; name one with `provider`"))
}

fn refuse_redis(
    figment: &Figment,
    adapters: [(&'static str, Option<Provider>); 3],
) -> Result<(), ConfigError> {
    match adapters.into_iter().find(|(_, provider)| *provider == Some(Provider::Redis)) {
        None => Ok(()),
        Some((key, _)) => Err(blame(figment, key, without_redis())),
    }
}

/// Finds the database URL: the one from the strongest source, wherever it is
/// written. Two different ones of equal strength would be a guess.
fn find_url(
    figment: &Figment,
    document: &Document,
    fallback: Option<&Environment>,
) -> Result<Option<(SecretUrl, Source)>, ConfigError> {
    let adapters = &document.adapters;
    let given = [
        ("postgres.url", &document.postgres.url),
        ("adapters.shortTerm.url", &adapters.short_term.url),
        ("adapters.broadcast.url", &adapters.broadcast.url),
    ];
    let mut best: Option<(&str, &str, Source)> = None;
    for (key, url) in given {
        let Some(url) = url else { continue };
        let source = source_of(figment, key);
        match &best {
            Some((_, _, other)) if other.precedence() > source.precedence() => {}
            Some((other_key, other_url, other))
                if other.precedence() == source.precedence() && *other_url != url =>
            {
                let reason = format!(
                    "another database than `{other_key}` from {other} gives; keep one of the two"
                );
                return Err(ConfigError::key(source, key, reason));
            }
            Some((_, _, other)) if other.precedence() == source.precedence() => {}
            Some(_) | None => best = Some((key, url, source)),
        }
    }
    if let Some((key, url, source)) = best {
        return Ok(Some((parse(figment, key, url)?, source)));
    }
    let Some(url) = fallback.and_then(|environment| environment.get(DATABASE_URL)) else {
        return Ok(None);
    };
    let source = Source::Variable(DATABASE_URL.to_owned());
    match SecretUrl::parse(url) {
        Some(url) => Ok(Some((url, source))),
        // Passing it over would fall back to memory, which loses data.
        None => Err(ConfigError::whole(
            source,
            "not a postgres:// URL; set TASKCAST_POSTGRES_URL, or ask for memory with \
             TASKCAST_ADAPTERS__SHORT_TERM__PROVIDER=memory",
        )),
    }
}

fn parse(figment: &Figment, key: &str, url: &str) -> Result<SecretUrl, ConfigError> {
    SecretUrl::parse(url)
        .ok_or_else(|| refuse(figment, key, "must begin with postgres:// or postgresql://"))
}

/// Blames an adapter, by whichever of its keys was given.
fn blame(figment: &Figment, key: &str, reason: impl Into<String>) -> ConfigError {
    let given = match source_of(figment, &format!("{key}.provider")) {
        Source::Default => format!("{key}.url"),
        Source::File(_) | Source::Variable(_) | Source::Flag(_) => format!("{key}.provider"),
    };
    refuse(figment, &given, reason)
}

fn source_of_adapter(figment: &Figment, key: &str) -> Source {
    source_of(figment, &format!("{key}.provider"))
}
