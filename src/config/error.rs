//! Why a configuration is refused, in one sentence that names the place.

use std::fmt;
use std::path::PathBuf;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody gave it.
    Default,
    /// A configuration file, by its path.
    File(PathBuf),
    /// An environment variable, by its name.
    Variable(String),
    /// A command line flag, by its long name with the dashes.
    Flag(String),
}

impl Source {
    /// Orders sources by who wins: the higher number does.
    pub(super) fn precedence(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File(_) => 1,
            Self::Variable(_) => 2,
            Self::Flag(_) => 3,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A refused configuration: where, which key, and why.
///
/// The reason never repeats a string from the configuration that could be a
/// secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    source: Source,
    key: Option<String>,
    reason: String,
}

impl ConfigError {
    /// Blames a value.
    pub(super) fn key(source: Source, key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { source, key: Some(key.into()), reason: reason.into() }
    }

    /// Blames a file or a variable as a whole.
    pub(super) fn whole(source: Source, reason: impl Into<String>) -> Self {
        Self { source, key: None, reason: reason.into() }
    }

    /// Refuses a setting that a later version will understand.
    pub(super) fn not_supported(source: Source, key: impl Into<String>) -> Self {
        Self::key(source, key, "not supported in this version, remove it to start")
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.source, &self.key) {
            (Source::Default, Some(key)) => write!(f, "configuration key `{key}`")?,
            (source, Some(key)) => write!(f, "{source}, key `{key}`")?,
            (source, None) => write!(f, "{source}")?,
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for ConfigError {}

/// Refuses an empty mode. Elsewhere empty means absent, but here the default
/// lets everybody in, and nobody asks for that by leaving a value out.
pub(super) fn empty_mode(source: Source) -> ConfigError {
    ConfigError::key(source, "auth.mode", "the mode is empty; write `none` for no authentication")
}
