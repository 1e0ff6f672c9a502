//! Configuration: what an operator wrote, checked as a whole before anything
//! starts.
//!
//! Flags win over environment variables, those over the file, the file over
//! the defaults. [`Config::load`] takes all of them as arguments, so a test
//! needs no process of its own; [`Environment::from_process`] is the one place
//! of the crate that looks at the real environment.
//!
//! Invariant: nothing that was written is ignored. An unknown key, a value of
//! the wrong type or a setting that this version does not have refuses to
//! start, naming where it stands, its key and the reason. Variables are the
//! exception, since the environment is shared with others: an unknown one
//! warns.
//!
//! The table in `keys` is the one list of keys: values are checked against it,
//! masked by it, and documented from it. Secrets leave here in types that
//! cannot be printed.
//!
//! Connecting to anything is left to those who use the values.

mod address;
mod auth;
mod cleanup;
mod document;
mod env;
mod error;
mod file;
mod keys;
mod kind;
mod layer;
mod placeholder;
mod reference;
mod schema;
mod secret;
mod sections;
mod sentry;
mod show;
mod storage;
mod webhook;

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZero;
use std::path::PathBuf;

use figment::Figment;
use figment::providers::Serialized;
use figment::value::Value;

pub use address::HttpUrl;
pub use auth::{AuthSettings, ForwardAuthSettings, JwtAlgorithm, JwtKey, JwtSettings};
pub use cleanup::CleanupSettings;
use document::Document;
pub use env::Environment;
pub use error::{ConfigError, Place, Source};
use layer::{Layer, source_of};
pub use reference::{reference, update_reference};
pub use secret::{Secret, SecretUrl};
pub use sections::{
    CorsOrigins, Http, Limits, LogLevel, MemorySettings, MetricsSettings, PostgresSettings, Sse,
};
pub use sentry::SentrySettings;
pub use show::Setting;
pub use storage::Storage;
pub use webhook::{WebhookEndpoint, WebhookSettings};

/// What the configuration is loaded for. It decides the default host and
/// whether `PORT` and `DATABASE_URL`, which platforms set, are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A server that others reach.
    Serve,
    /// Migrations of the database.
    Migrate,
    /// A server for its developer only.
    Dev,
}

impl Purpose {
    fn default_host(self) -> &'static str {
        match self {
            Self::Serve | Self::Migrate => "0.0.0.0",
            Self::Dev => "127.0.0.1",
        }
    }

    /// Tells whether a variable of the platform may stand in for a missing
    /// value. In development it belongs to the application under work.
    fn reads_platform_variables(self) -> bool {
        match self {
            Self::Serve | Self::Migrate => true,
            Self::Dev => false,
        }
    }
}

/// Values given on the command line.
#[derive(Clone, Default)]
pub struct Flags {
    /// `--port`.
    pub port: Option<u16>,
    /// `--host`.
    pub host: Option<String>,
    /// `--log-level`.
    pub log_level: Option<LogLevel>,
    /// `--postgres-url`.
    pub postgres_url: Option<String>,
}

impl fmt::Debug for Flags {
    /// Leaves the URL out, which carries a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flags")
            .field("port", &self.port)
            .field("host", &self.host)
            .field("log_level", &self.log_level)
            .finish_non_exhaustive()
    }
}

/// Everything a configuration is made from.
#[derive(Debug)]
pub struct LoadOptions {
    /// What it is for.
    pub purpose: Purpose,
    /// The command line.
    pub flags: Flags,
    /// The file asked for; otherwise one is looked for in `directory`.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: Environment,
    /// The working directory, from which relative paths are taken.
    pub directory: PathBuf,
}

/// Where the values that an operator asks about first came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Where the port comes from.
    pub port: Source,
    /// Where the host comes from.
    pub host: Source,
    /// Where the choice of storage comes from. For Postgres it is the source
    /// of the URL.
    pub storage: Source,
}

/// A complete, checked configuration.
///
/// Printing it is safe: secrets are left out.
#[derive(Debug, Clone)]
pub struct Config {
    /// TCP port to listen on; 0 lets the system choose.
    pub port: u16,
    /// Address or name to listen on.
    pub host: String,
    /// Least important log lines to write.
    pub log_level: LogLevel,
    /// Threads that serve; without it as many as suit the machine.
    pub worker_threads: Option<NonZero<usize>>,
    /// Who may do what.
    pub auth: AuthSettings,
    /// Where tasks and events live.
    pub storage: Storage,
    /// Which web pages of other origins browsers let in.
    pub cors: CorsOrigins,
    /// Whether those may send cookies.
    pub cors_credentials: bool,
    /// Connections, and the names the server answers to.
    pub http: Http,
    /// Sizes and counts of what is accepted.
    pub limits: Limits,
    /// Who may read the numbers of the server.
    pub metrics: MetricsSettings,
    /// Streams.
    pub sse: Sse,
    /// The Postgres store.
    pub postgres: PostgresSettings,
    /// The memory store.
    pub memory: MemorySettings,
    /// Who is told of events.
    pub webhook: WebhookSettings,
    /// What is removed of tasks that have ended.
    pub cleanup: CleanupSettings,
    /// What is reported to Sentry, if anything.
    pub sentry: Option<SentrySettings>,
    /// Where values came from.
    pub sources: Sources,
    /// Every value with its origin, for a person to look at.
    pub settings: Vec<Setting>,
    /// What an operator should know, one sentence each.
    pub warnings: Vec<String>,
}

impl Config {
    /// Loads and checks the configuration.
    ///
    /// # Errors
    ///
    /// Returns a [`ConfigError`] that names the source, the key and the reason
    /// of the first thing that is wrong.
    pub fn load(options: &LoadOptions) -> Result<Self, ConfigError> {
        let known = schema::tree();
        let file = match &options.file {
            Some(path) => Some(options.directory.join(path)),
            None => file::find(&options.directory)?,
        };

        let mut figment = Figment::from(Serialized::defaults(Document::default()));
        if let Some(path) = file {
            figment = figment.merge(file::read(&path, &known, &options.environment)?);
        }
        let env::Reading { layer, warnings } =
            env::read(&options.environment, &known, &options.directory)?;
        let figment = figment.merge(layer).merge(flags(&options.flags));
        let document = layer::extract(&figment)?;
        let settings = show::settings(&figment, &known);
        Self::resolve(options, &figment, document, settings, warnings)
    }

    fn resolve(
        options: &LoadOptions,
        figment: &Figment,
        document: Document,
        mut settings: Vec<Setting>,
        mut warnings: Vec<String>,
    ) -> Result<Self, ConfigError> {
        let platform = options.purpose.reads_platform_variables().then_some(&options.environment);
        let resolved = storage::resolve(figment, &document, platform)?;
        warnings.extend(resolved.warnings);
        let (port, port_source) = port(figment, document.port, platform)?;
        let host = document.host.unwrap_or_else(|| options.purpose.default_host().to_owned());
        let sources = Sources {
            port: port_source,
            host: source_of(figment, "host"),
            storage: resolved.source,
        };
        show::complete(&mut settings, port, &host, &resolved.storage, &sources);
        if document.cors.is_too_open() {
            let source = source_of(figment, "cors.credentials");
            let reason = "cookies need origins by name; list them in place of `*`";
            return Err(ConfigError::key(source, "cors.credentials", reason));
        }
        let auth = auth::resolve(figment, document.auth, &options.directory)?;
        warnings.extend(auth::unused(&auth, &settings));
        Ok(Self {
            port,
            host,
            auth,
            storage: resolved.storage,
            log_level: document.log_level,
            worker_threads: document.worker_threads,
            cors_credentials: document.cors.credentials,
            cors: match document.cors.settings() {
                CorsOrigins::Off if options.purpose == Purpose::Dev => CorsOrigins::Localhost,
                origins => origins,
            },
            http: document.http,
            limits: document.limits,
            metrics: document.metrics.settings(),
            sse: document.sse,
            postgres: document.postgres.settings(),
            memory: document.memory,
            webhook: webhook::resolve(document.webhook)?,
            cleanup: cleanup::resolve(figment, document.cleanup)?,
            sentry: document.sentry.settings(),
            sources,
            settings,
            warnings,
        })
    }

    /// Returns the place a key was given at, for sentences about its value.
    pub fn place_of(&self, key: &str) -> Place {
        let setting = self.settings.iter().find(|setting| setting.key == key);
        let source = setting.map_or(Source::Default, |setting| setting.source.clone());
        Place::key(source, key)
    }
}

/// Makes a layer of what was given on the command line.
fn flags(flags: &Flags) -> Layer {
    let mut given = BTreeMap::new();
    let mut put = |key: &str, flag: &str, value: Option<Value>| {
        if let Some(value) = value {
            given.insert(key.to_owned(), (flag.to_owned(), value));
        }
    };
    put("port", "--port", flags.port.map(Value::from));
    put("host", "--host", flags.host.clone().map(Value::from));
    put("logLevel", "--log-level", flags.log_level.map(|level| Value::from(level.as_str())));
    put("postgres.url", "--postgres-url", flags.postgres_url.clone().map(Value::from));
    Layer::flags(given)
}

/// Chooses the port: what the layers say, else the platform's `PORT`, else the
/// default.
fn port(
    figment: &Figment,
    port: u16,
    platform: Option<&Environment>,
) -> Result<(u16, Source), ConfigError> {
    let source = source_of(figment, "port");
    let given = platform
        .filter(|_| source == Source::Default)
        .and_then(|environment| environment.get("PORT"));
    let Some(text) = given else {
        return Ok((port, source));
    };
    let source = Source::Variable("PORT".to_owned());
    match text.parse() {
        Ok(port) => Ok((port, source)),
        Err(_) => Err(ConfigError::key(source, "port", "expected a whole number from 0 to 65535")),
    }
}

#[cfg(test)]
mod tests;
