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

/// Where in the configuration something stands: a source, and the key unless
/// all of the source is meant.
///
/// Those who find a value wrong only when they use it, such as a public key
/// that does not parse, refuse it with [`refuse`](Self::refuse), so that the
/// sentence reads like every other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    source: Source,
    key: Option<String>,
}

impl Place {
    /// Names a key of a source.
    pub(super) fn key(source: Source, key: impl Into<String>) -> Self {
        Self { source, key: Some(key.into()) }
    }

    /// Refuses what stands here. The reason must not repeat it if it could be
    /// a secret.
    pub fn refuse(&self, reason: impl Into<String>) -> ConfigError {
        ConfigError { place: self.clone(), reason: reason.into() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.source, &self.key) {
            (Source::Default, Some(key)) => write!(f, "configuration key `{key}`"),
            (source, Some(key)) => write!(f, "{source}, key `{key}`"),
            (source, None) => write!(f, "{source}"),
        }
    }
}

/// A refused configuration: where, which key, and why.
///
/// The reason never repeats a string from the configuration that could be a
/// secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    place: Place,
    reason: String,
}

impl ConfigError {
    /// Blames a value.
    pub(super) fn key(source: Source, key: impl Into<String>, reason: impl Into<String>) -> Self {
        Place::key(source, key).refuse(reason)
    }

    /// Blames a file or a variable as a whole.
    pub(super) fn whole(source: Source, reason: impl Into<String>) -> Self {
        Place { source, key: None }.refuse(reason)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}

impl std::error::Error for ConfigError {}
