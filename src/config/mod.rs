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
//! Connecting to anything is left to those who use the values.

mod document;
mod env;
mod error;
mod file;
mod layer;
mod placeholder;
mod secret;
mod sections;
mod storage;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use figment::Figment;
use figment::providers::Serialized;
use figment::value::Value;

use document::Document;
pub use env::Environment;
pub use error::{ConfigError, Source};
use layer::{Layer, source_of};
pub use secret::SecretUrl;
use sections::OutOfRange;
pub use sections::{
    AuthMode, CorsOrigins, Limits, LogLevel, MemorySettings, PostgresSettings, Sse,
};
pub use storage::Storage;

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
/// Printing it is safe: passwords in URLs are left out.
#[derive(Debug, Clone)]
pub struct Config {
    /// TCP port to listen on; 0 lets the system choose.
    pub port: u16,
    /// Address or name to listen on.
    pub host: String,
    /// Least important log lines to write.
    pub log_level: LogLevel,
    /// Who may do what.
    pub auth: AuthMode,
    /// Where tasks and events live.
    pub storage: Storage,
    /// Which web pages of other origins browsers let in.
    pub cors: CorsOrigins,
    /// Sizes and counts of what is accepted.
    pub limits: Limits,
    /// Streams.
    pub sse: Sse,
    /// The Postgres store.
    pub postgres: PostgresSettings,
    /// The memory store.
    pub memory: MemorySettings,
    /// Where values came from.
    pub sources: Sources,
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
        let known = document::known_keys()?;
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
        Self::resolve(options, &figment, document, warnings)
    }

    fn resolve(
        options: &LoadOptions,
        figment: &Figment,
        document: Document,
        mut warnings: Vec<String>,
    ) -> Result<Self, ConfigError> {
        let postgres = document.postgres.settings();
        check(figment, "limits", document.limits.check())?;
        check(figment, "sse", document.sse.check())?;
        check(figment, "postgres", postgres.check())?;
        check(figment, "memory", document.memory.check())?;
        let auth = auth_mode(figment, &document.auth.mode)?;

        let platform = options.purpose.reads_platform_variables().then_some(&options.environment);
        let resolved = storage::resolve(figment, &document, platform)?;
        warnings.extend(resolved.warnings);
        let (port, port_source) = port(figment, document.port, platform)?;
        Ok(Self {
            port,
            auth,
            storage: resolved.storage,
            log_level: document.log_level,
            cors: document.cors.origins,
            limits: document.limits,
            sse: document.sse,
            postgres,
            memory: document.memory,
            sources: Sources {
                port: port_source,
                host: source_of(figment, "host"),
                storage: resolved.source,
            },
            host: document.host.unwrap_or_else(|| options.purpose.default_host().to_owned()),
            warnings,
        })
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

/// Turns a number out of range into a refusal that names its source.
fn check(
    figment: &Figment,
    section: &str,
    checked: Result<(), OutOfRange>,
) -> Result<(), ConfigError> {
    checked.map_err(|OutOfRange { key, allowed }| {
        let key = format!("{section}.{key}");
        let reason = format!("must be from {} to {}", allowed.start(), allowed.end());
        ConfigError::key(source_of(figment, &key), key, reason)
    })
}

/// Reads the mode. There is no lenient reading of a mode: what is not
/// understood must not leave the server open.
fn auth_mode(figment: &Figment, mode: &str) -> Result<AuthMode, ConfigError> {
    const KEY: &str = "auth.mode";
    let source = || source_of(figment, KEY);
    match mode {
        "none" => Ok(AuthMode::None),
        "jwt" | "custom" => Err(ConfigError::key(
            source(),
            KEY,
            format!("mode `{mode}` is not supported in this version; the only mode is `none`"),
        )),
        unknown => Err(ConfigError::key(
            source(),
            KEY,
            format!("`{unknown}` is not a mode; the only mode in this version is `none`"),
        )),
    }
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
