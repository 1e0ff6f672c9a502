//! `auth`: who may do what, and the keys that prove it.
//!
//! Key files are read here, so that whoever checks tokens gets the key itself.
//! Whether a public key is one is left to them.
//!
//! There is no lenient reading of anything here: what is not understood must
//! not leave the server open.

use std::fs;
use std::path::Path;

use figment::Figment;
use serde::{Deserialize, Serialize};

use super::address::HttpUrl;
use super::document::{OneOrMany, understood};
use super::error::{ConfigError, Place, Source};
use super::layer::{place_of, refuse};
use super::secret::Secret;
use super::show::Setting;

/// Least length of an HMAC key, in bytes: that of the shortest digest.
const LEAST_SECRET: usize = 32;

const MODE: &str = "auth.mode";
const SECRET: &str = "auth.jwt.secret";
const PUBLIC_KEY: &str = "auth.jwt.publicKey";
const PUBLIC_KEY_FILE: &str = "auth.jwt.publicKeyFile";

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AuthSettings {
    /// Everyone may do everything.
    #[default]
    None,
    /// Bearers of a signed token may do what it says.
    Jwt(JwtSettings),
    /// Another service is asked.
    Custom(ForwardAuthSettings),
}

/// `auth.jwt`: which tokens are valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtSettings {
    /// The one algorithm a token may be signed with.
    pub algorithm: JwtAlgorithm,
    /// The key that goes with the algorithm.
    pub key: JwtKey,
    /// Where the key is configured, for the sentence that refuses one that
    /// does not parse.
    pub key_place: Place,
    /// What the claim `iss` must be, if it must be anything.
    pub issuer: Option<String>,
    /// What the claim `aud` must name one of; empty means that it is not
    /// looked at.
    pub audience: Vec<String>,
    /// Seconds by which the clock of whoever signs may be off.
    pub leeway_seconds: u64,
}

/// The key that signatures are checked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtKey {
    /// The key of an `HS…` algorithm, 32 bytes or more.
    Secret(Secret),
    /// The public key of any other algorithm, as PEM text that was not parsed
    /// yet.
    PublicKey(Secret),
}

/// An algorithm that tokens may be signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA over P-256 with SHA-256.
    Es256,
    /// ECDSA over P-384 with SHA-384.
    Es384,
}

impl JwtAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 11] = [
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
    ];

    /// Returns the name as in the header of a token.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
        }
    }

    /// Parses an algorithm's name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == text)
    }

    /// Tells whether whoever checks a token could also sign one.
    pub const fn is_symmetric(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }
}

/// `auth.custom`: the service that is asked who a caller is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardAuthSettings {
    /// Where it is.
    pub url: HttpUrl,
    /// Milliseconds after which it counts as unreachable.
    pub timeout_ms: u64,
    /// Milliseconds its answer holds for the same credentials, method and
    /// path; 0 for not at all.
    pub cache_ms: u64,
    /// Milliseconds after which it is asked again about an open stream.
    pub recheck_ms: u64,
}

/// `auth` as written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct AuthSection {
    mode: String,
    jwt: JwtSection,
    custom: CustomSection,
}

impl Default for AuthSection {
    fn default() -> Self {
        let mode = "none".to_owned();
        Self { mode, jwt: JwtSection::default(), custom: CustomSection::default() }
    }
}

/// `auth.jwt` as written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct JwtSection {
    algorithm: String,
    secret: Option<String>,
    public_key: Option<String>,
    public_key_file: Option<String>,
    issuer: Option<String>,
    audience: OneOrMany,
    leeway_seconds: u64,
}

impl Default for JwtSection {
    fn default() -> Self {
        Self {
            algorithm: JwtAlgorithm::Hs256.as_str().to_owned(),
            secret: None,
            public_key: None,
            public_key_file: None,
            issuer: None,
            audience: OneOrMany::default(),
            leeway_seconds: 30,
        }
    }
}

/// `auth.custom` as written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct CustomSection {
    url: Option<String>,
    timeout_ms: u64,
    cache_ms: u64,
    recheck_ms: u64,
}

impl Default for CustomSection {
    fn default() -> Self {
        Self { url: None, timeout_ms: 2000, cache_ms: 5000, recheck_ms: 60_000 }
    }
}

/// Decides who may do what. Relative key files are taken from `directory`.
pub(super) fn resolve(
    figment: &Figment,
    auth: AuthSection,
    directory: &Path,
) -> Result<AuthSettings, ConfigError> {
    match &*auth.mode {
        "none" => Ok(AuthSettings::None),
        "jwt" => jwt(figment, auth.jwt, directory).map(AuthSettings::Jwt),
        "custom" => custom(figment, auth.custom).map(AuthSettings::Custom),
        _ => Err(refuse(figment, MODE, "not a mode")),
    }
}

/// Words the settings that the mode leaves without effect. In mode `none` that
/// is more than a loose end: whoever wrote them meant to close the server.
pub(super) fn unused(auth: &AuthSettings, settings: &[Setting]) -> Vec<String> {
    let (mode, unused): (_, &[&str]) = match auth {
        AuthSettings::None => ("none", &["auth.jwt.", "auth.custom."]),
        AuthSettings::Jwt(_) => ("jwt", &["auth.custom."]),
        AuthSettings::Custom(_) => ("custom", &["auth.jwt."]),
    };
    let given = |section: &&str| {
        settings
            .iter()
            .find(|setting| setting.key.starts_with(*section) && setting.source != Source::Default)
    };
    let consequence = match auth {
        AuthSettings::None => "; THE SERVER IS OPEN, whoever reaches it may do everything",
        AuthSettings::Jwt(_) | AuthSettings::Custom(_) => "",
    };
    unused
        .iter()
        .filter_map(given)
        .map(|setting| {
            let place = Place::key(setting.source.clone(), setting.key);
            format!("{place}: not used, because `{MODE}` is `{mode}`{consequence}")
        })
        .collect()
}

fn jwt(figment: &Figment, jwt: JwtSection, directory: &Path) -> Result<JwtSettings, ConfigError> {
    let algorithm = understood(JwtAlgorithm::parse(&jwt.algorithm))?;
    let (key, name) = if algorithm.is_symmetric() {
        (JwtKey::Secret(hmac_secret(figment, &jwt)?), SECRET)
    } else {
        let (pem, name) = public_key(figment, &jwt, directory)?;
        (JwtKey::PublicKey(pem), name)
    };
    Ok(JwtSettings {
        algorithm,
        key,
        key_place: place_of(figment, name),
        issuer: jwt.issuer,
        audience: jwt.audience.into_vec(),
        leeway_seconds: jwt.leeway_seconds,
    })
}

fn hmac_secret(figment: &Figment, jwt: &JwtSection) -> Result<Secret, ConfigError> {
    let algorithm = &jwt.algorithm;
    let other = [(PUBLIC_KEY, &jwt.public_key), (PUBLIC_KEY_FILE, &jwt.public_key_file)];
    if let Some((key, _)) = other.into_iter().find(|(_, value)| value.is_some()) {
        let reason = format!(
            "{algorithm} has no public key; remove it, or name the algorithm it is for with \
             `auth.jwt.algorithm`"
        );
        return Err(refuse(figment, key, reason));
    }
    let Some(secret) = &jwt.secret else {
        let reason = format!("mode `jwt` with {algorithm} needs a key; set TASKCAST_JWT_SECRET");
        return Err(refuse(figment, MODE, reason));
    };
    if is_pem(secret) {
        let reason = format!(
            "a key in PEM is not a secret, and with {algorithm} whoever knows it can sign tokens"
        );
        return Err(refuse(figment, SECRET, reason));
    }
    if secret.len() < LEAST_SECRET {
        let reason = format!(
            "{} bytes are too few; a secret has {LEAST_SECRET} or more, such as `openssl rand \
             -base64 32` prints",
            secret.len()
        );
        return Err(refuse(figment, SECRET, reason));
    }
    Ok(Secret::new(secret))
}

fn public_key(
    figment: &Figment,
    jwt: &JwtSection,
    directory: &Path,
) -> Result<(Secret, &'static str), ConfigError> {
    let algorithm = &jwt.algorithm;
    if jwt.secret.is_some() {
        let reason = format!(
            "{algorithm} has a public key and no secret; remove it, or name the algorithm it is \
             for with `auth.jwt.algorithm`"
        );
        return Err(refuse(figment, SECRET, reason));
    }
    let (key, pem) = match (&jwt.public_key, &jwt.public_key_file) {
        (Some(_), Some(_)) => {
            let reason = format!("`{PUBLIC_KEY}` is given too; keep one of the two");
            return Err(refuse(figment, PUBLIC_KEY_FILE, reason));
        }
        // In a variable, line ends are often spelled out.
        (Some(pem), None) => (PUBLIC_KEY, pem.replace("\\n", "\n")),
        (None, Some(file)) => {
            (PUBLIC_KEY_FILE, read(figment, PUBLIC_KEY_FILE, &directory.join(file))?)
        }
        (None, None) => {
            let reason = format!(
                "mode `jwt` with {algorithm} needs a public key; set TASKCAST_JWT_PUBLIC_KEY_FILE"
            );
            return Err(refuse(figment, MODE, reason));
        }
    };
    if pem.contains("PRIVATE KEY-----") {
        let reason = "this is a private key; only the public one is needed here";
        return Err(refuse(figment, key, reason));
    }
    if !is_pem(&pem) {
        return Err(refuse(figment, key, "not a key in PEM, which begins with `-----BEGIN`"));
    }
    Ok((Secret::new(pem), key))
}

fn is_pem(text: &str) -> bool {
    text.contains("-----BEGIN")
}

fn read(figment: &Figment, key: &str, path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|error| {
        refuse(figment, key, format!("{} cannot be read: {error}", path.display()))
    })
}

fn custom(figment: &Figment, custom: CustomSection) -> Result<ForwardAuthSettings, ConfigError> {
    let Some(url) = custom.url else {
        let reason = "mode `custom` needs the URL of the service to ask; set `auth.custom.url`";
        return Err(refuse(figment, MODE, reason));
    };
    Ok(ForwardAuthSettings {
        url: understood(HttpUrl::parse(&url))?,
        timeout_ms: custom.timeout_ms,
        cache_ms: custom.cache_ms,
        recheck_ms: custom.recheck_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::super::keys::{ALGORITHMS, MODES};
    use super::super::tests::Setup;
    use super::*;

    const SECRET_OF_32: &str = "canary-canary-canary-canary-0032";
    const PEM: &str = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";

    fn jwt(setup: &Setup) -> JwtSettings {
        match setup.load().auth {
            AuthSettings::Jwt(settings) => settings,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_name_in_the_table_is_understood() {
        assert_eq!(JwtAlgorithm::ALL.map(JwtAlgorithm::as_str), ALGORITHMS);
        for mode in MODES {
            let auth = AuthSection { mode: (*mode).to_owned(), ..AuthSection::default() };
            let error = resolve(&Figment::new(), auth, Path::new("")).err();
            assert!(error.is_none_or(|error| error.to_string().contains("needs")), "{mode}");
        }
    }

    #[test]
    fn the_variables_of_the_original_configure_tokens() {
        let settings = jwt(&Setup::new().env(&[
            ("TASKCAST_AUTH_MODE", "jwt"),
            ("TASKCAST_JWT_SECRET", SECRET_OF_32),
            ("TASKCAST_JWT_ALGORITHM", "HS384"),
            ("TASKCAST_JWT_ISSUER", "me"),
            ("TASKCAST_JWT_AUDIENCE", "one"),
        ]));
        assert_eq!(settings.algorithm, JwtAlgorithm::Hs384);
        assert_eq!(settings.key, JwtKey::Secret(Secret::new(SECRET_OF_32)));
        assert_eq!(settings.issuer.as_deref(), Some("me"));
        assert_eq!(settings.audience, ["one"]);
        assert_eq!(settings.leeway_seconds, 30);
        assert!(!format!("{settings:?}").contains("canary"));

        let settings = jwt(&Setup::new()
            .file("secret", &format!("{SECRET_OF_32}\n"))
            .yaml("auth: { mode: jwt, jwt: { audience: [one, two], leewaySeconds: 0 } }")
            .env(&[("TASKCAST_AUTH__JWT__SECRET_FILE", "secret")]));
        assert_eq!(settings.key, JwtKey::Secret(Secret::new(SECRET_OF_32)));
        assert_eq!(settings.audience, ["one", "two"]);
        assert_eq!(settings.leeway_seconds, 0);
    }

    #[test]
    fn a_public_key_comes_as_text_or_as_a_file() {
        for setup in [
            Setup::new().env(&[("TASKCAST_JWT_PUBLIC_KEY_FILE", "key.pem")]),
            Setup::new().env(&[("TASKCAST_JWT_PUBLIC_KEY", PEM)]),
            Setup::new().env(&[("TASKCAST_JWT_PUBLIC_KEY", &PEM.replace('\n', "\\n"))]),
        ] {
            let setup =
                setup.file("key.pem", PEM).yaml("auth: { mode: jwt, jwt: { algorithm: ES384 } }");
            let settings = jwt(&setup);
            assert_eq!(settings.key, JwtKey::PublicKey(Secret::new(PEM)));
            let refusal = settings.key_place.refuse("x").to_string();
            assert!(refusal.starts_with("variable TASKCAST_JWT_PUBLIC_KEY"), "{refusal}");
        }
    }

    #[test]
    fn keys_that_do_not_fit_are_refused_without_showing_them() {
        let pem = PEM.replace('\n', "\\n");
        let private = pem.replace("PUBLIC", "PRIVATE");
        for (jwt, key) in [
            (String::new(), "`auth.mode`"),
            ("algorithm: RS256".to_owned(), "`auth.mode`"),
            ("secret: canary".to_owned(), "`auth.jwt.secret`"),
            (format!("secret: \"{pem}\""), "`auth.jwt.secret`"),
            (format!("secret: {SECRET_OF_32}, publicKeyFile: k"), "`auth.jwt.publicKeyFile`"),
            (format!("secret: {SECRET_OF_32}, algorithm: PS256"), "`auth.jwt.secret`"),
            (format!("algorithm: ES256, publicKey: {SECRET_OF_32}"), "`auth.jwt.publicKey`"),
            (format!("algorithm: ES256, publicKey: \"{private}\""), "`auth.jwt.publicKey`"),
            (
                format!("algorithm: ES256, publicKeyFile: k, publicKey: \"{pem}\""),
                "`auth.jwt.publicKeyFile`",
            ),
            ("algorithm: ES256, publicKeyFile: gone.pem".to_owned(), "gone.pem cannot be read"),
            ("algorithm: ES512".to_owned(), "`ES512` is not one of `HS256`"),
            ("algorithm: none".to_owned(), "`none` is not one of `HS256`"),
            (format!("secret: {SECRET_OF_32}, leewaySeconds: 31"), "from 0 to 30"),
        ] {
            let yaml = format!("auth: {{ mode: jwt, jwt: {{ {jwt} }} }}");
            let error = Setup::new().yaml(&yaml).refused(&["taskcast.config.yaml", key]);
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn forward_auth_needs_a_url_one_can_ask() {
        let load = |custom: &str| {
            Setup::new().yaml(&format!("auth: {{ mode: custom, custom: {{ {custom} }} }}"))
        };
        let AuthSettings::Custom(settings) = load("url: \"https://u:canary@h/ask\"").load().auth
        else {
            panic!("not asked for")
        };
        assert_eq!(
            (settings.timeout_ms, settings.cache_ms, settings.recheck_ms),
            (2000, 5000, 60_000)
        );
        assert!(!format!("{settings:?}").contains("canary"));
        load("").refused(&["`auth.mode`", "`auth.custom.url`"]);
        for url in ["ftp://canary", "canary", "http://"] {
            let error =
                load(&format!("url: \"{url}\"")).refused(&["`auth.custom.url`", "https://"]);
            assert!(!error.contains("canary"), "{error}");
        }
        load("url: \"http://h\", cacheMs: 5001").refused(&["`auth.custom.cacheMs`", "5000"]);
    }

    #[test]
    fn settings_that_the_mode_does_not_use_warn() {
        let warnings = |setup: Setup| setup.load().warnings;
        let none = warnings(Setup::new().env(&[("TASKCAST_JWT_SECRET", SECRET_OF_32)]));
        assert_eq!(none.len(), 1, "{none:?}");
        for part in ["TASKCAST_JWT_SECRET", "`auth.jwt.secret`", "`auth.mode` is `none`", "OPEN"] {
            assert!(none[0].contains(part), "{none:?}");
        }
        let text = format!(
            "auth: {{ mode: jwt, jwt: {{ secret: {SECRET_OF_32} }}, custom: {{ cacheMs: 1 }} }}"
        );
        let custom = warnings(Setup::new().yaml(&text));
        assert_eq!(custom.len(), 1, "{custom:?}");
        assert!(custom[0].contains("`auth.custom.cacheMs`"), "{custom:?}");
    }
}
