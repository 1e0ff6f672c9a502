//! Signed tokens: reading them, and making them for operators.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header, Validation, decode, encode,
    get_current_timestamp,
};
use serde_json::{Map, Value};

use super::{AuthError, AuthMode, Authenticate, Credentials, crypto, principal_of};
use crate::domain::Principal;

/// Longest leeway, whatever is configured.
const LONGEST_LEEWAY: Duration = Duration::from_secs(30);

/// Shortest secret, in bytes: that of the shortest digest.
const SHORTEST_SECRET: usize = 32;

/// An RSA key of 2,048 bits takes more than this; shorter ones can be broken.
const SHORTEST_RSA_DER: usize = 256;

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
    const fn of_library(self) -> Algorithm {
        match self {
            Self::Hs256 => Algorithm::HS256,
            Self::Hs384 => Algorithm::HS384,
            Self::Hs512 => Algorithm::HS512,
            Self::Rs256 => Algorithm::RS256,
            Self::Rs384 => Algorithm::RS384,
            Self::Rs512 => Algorithm::RS512,
            Self::Ps256 => Algorithm::PS256,
            Self::Ps384 => Algorithm::PS384,
            Self::Ps512 => Algorithm::PS512,
            Self::Es256 => Algorithm::ES256,
            Self::Es384 => Algorithm::ES384,
        }
    }

    /// Returns the length of an uncompressed point of the algorithm's curve.
    const fn point_bytes(self) -> Option<usize> {
        match self {
            Self::Es256 => Some(65),
            Self::Es384 => Some(97),
            _ => None,
        }
    }
}

/// What signatures are checked with.
#[derive(Clone)]
pub enum JwtKey {
    /// The secret of an `Hs…` algorithm, as it is: 32 bytes or more.
    Secret(String),
    /// The public key of any other algorithm, in PEM.
    PublicPem(String),
}

impl fmt::Debug for JwtKey {
    /// Leaves the key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret(..)",
            Self::PublicPem(_) => "PublicPem(..)",
        })
    }
}

/// Which tokens are good.
#[derive(Debug, Clone)]
pub struct JwtOptions {
    /// The one algorithm they may be signed with.
    pub algorithm: JwtAlgorithm,
    /// The key that goes with it.
    pub key: JwtKey,
    /// What `iss` has to be, if it matters.
    pub issuer: Option<String>,
    /// What `aud` has to name one of; empty when it does not matter.
    pub audience: Vec<String>,
    /// How far the clock of whoever signs may be off; more than 30 s counts
    /// as 30 s.
    pub leeway: Duration,
}

/// A key that cannot be used; the text completes a sentence about the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidKey(&'static str);

/// What is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Problem {
    Unreadable,
    Algorithm,
    Signature,
    Expired,
    Early,
    Issuer,
    Audience,
    Other,
}

/// Believes tokens that are signed with one key by one algorithm.
pub struct JwtAuth {
    key: DecodingKey,
    validation: Validation,
}

impl fmt::Debug for JwtAuth {
    /// Leaves the key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtAuth")
            .field("algorithms", &self.validation.algorithms)
            .finish_non_exhaustive()
    }
}

impl JwtAuth {
    /// Makes an authenticator of a key.
    ///
    /// # Errors
    ///
    /// Fails when the key is none for the algorithm, or too short for any.
    pub fn new(options: &JwtOptions) -> Result<Self, InvalidKey> {
        crypto::install();
        let mut validation = Validation::new(options.algorithm.of_library());
        validation.leeway = options.leeway.min(LONGEST_LEEWAY).as_secs();
        validation.validate_nbf = true;
        validation.validate_aud = !options.audience.is_empty();
        validation.required_spec_claims = HashSet::new();
        if let Some(issuer) = &options.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        if !options.audience.is_empty() {
            validation.set_audience(&options.audience);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        Ok(Self { key: decoding_key(options.algorithm, &options.key)?, validation })
    }

    /// Returns whom a token names.
    ///
    /// # Errors
    ///
    /// Tells an expired token from one that cannot be read and from one that
    /// is not good; a signature that does not fit is the latter.
    pub fn verify(&self, token: &str) -> Result<Principal, AuthError> {
        let claims = self.read(token).map_err(|problem| match problem {
            Problem::Unreadable => AuthError::Malformed,
            Problem::Expired => AuthError::Expired,
            _ => AuthError::Invalid,
        })?;
        principal_of(&claims.clone(), claims).map_err(|_| AuthError::Invalid)
    }

    /// Returns why a token is not good, for whoever runs the server; `None`
    /// when it is.
    pub fn why_not(&self, token: &str) -> Option<&'static str> {
        Some(match self.read(token).err()? {
            Problem::Unreadable => "it is no signed token",
            Problem::Algorithm => "it is signed with another algorithm than the configured one",
            Problem::Signature => "its signature is not of the configured key",
            Problem::Expired => "it has expired",
            Problem::Early => "it is not valid yet",
            Problem::Issuer => "its `iss` is not the configured issuer",
            Problem::Audience => "its `aud` names no configured audience",
            Problem::Other => "it has a claim of the wrong type, or demands what is not supported",
        })
    }

    fn read(&self, token: &str) -> Result<Map<String, Value>, Problem> {
        let read = decode::<Map<String, Value>>(token, &self.key, &self.validation);
        let read = read.map_err(|error| match error.kind() {
            ErrorKind::InvalidToken
            | ErrorKind::Base64(_)
            | ErrorKind::Json(_)
            | ErrorKind::Utf8(_) => Problem::Unreadable,
            ErrorKind::InvalidAlgorithm => Problem::Algorithm,
            ErrorKind::InvalidSignature => Problem::Signature,
            ErrorKind::ExpiredSignature => Problem::Expired,
            ErrorKind::ImmatureSignature => Problem::Early,
            ErrorKind::InvalidIssuer => Problem::Issuer,
            ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => Problem::Issuer,
            ErrorKind::InvalidAudience | ErrorKind::MissingRequiredClaim(_) => Problem::Audience,
            _ => Problem::Other,
        })?;
        // Extensions that have to be understood, of which there is none here.
        let is_critical = read.header.crit.is_some();
        if is_critical || principal_of(&read.claims, Map::new()).is_err() {
            return Err(Problem::Other);
        }
        Ok(read.claims)
    }
}

fn decoding_key(algorithm: JwtAlgorithm, key: &JwtKey) -> Result<DecodingKey, InvalidKey> {
    let family = algorithm.of_library().family();
    let (JwtKey::Secret(text) | JwtKey::PublicPem(text)) = key;
    let is_pem = text.contains("-----BEGIN");
    match (family, key) {
        (AlgorithmFamily::Hmac, JwtKey::Secret(secret)) => {
            if is_pem {
                return Err(InvalidKey("is in PEM, so it is no shared secret"));
            }
            if secret.len() < SHORTEST_SECRET {
                return Err(InvalidKey("is too short: a secret has 32 bytes or more"));
            }
            Ok(DecodingKey::from_secret(secret.as_bytes()))
        }
        (AlgorithmFamily::Rsa | AlgorithmFamily::Ec, JwtKey::PublicPem(pem)) => {
            // A certificate or a private key would be read as something else.
            if !pem.contains("PUBLIC KEY-----") {
                return Err(InvalidKey("is not a public key in PEM"));
            }
            if family == AlgorithmFamily::Rsa { rsa_key(pem) } else { curve_key(algorithm, pem) }
        }
        _ => Err(InvalidKey("does not go with the algorithm")),
    }
}

fn rsa_key(pem: &str) -> Result<DecodingKey, InvalidKey> {
    let key = DecodingKey::from_rsa_pem(pem.as_bytes());
    let key = key.map_err(|_| InvalidKey("is not an RSA public key in PEM"))?;
    let is_long = key.try_get_as_bytes().is_ok_and(|der| der.len() > SHORTEST_RSA_DER);
    if is_long { Ok(key) } else { Err(InvalidKey("is too short: RSA takes 2048 bits or more")) }
}

fn curve_key(algorithm: JwtAlgorithm, pem: &str) -> Result<DecodingKey, InvalidKey> {
    let key = DecodingKey::from_ec_pem(pem.as_bytes());
    let key = key.map_err(|_| InvalidKey("is not a public key of an elliptic curve in PEM"))?;
    let length = key.try_get_as_bytes().ok().map(<[u8]>::len);
    if length == algorithm.point_bytes() {
        Ok(key)
    } else {
        Err(InvalidKey("is of another curve than the algorithm's"))
    }
}

#[async_trait]
impl Authenticate for JwtAuth {
    fn mode(&self) -> AuthMode {
        AuthMode::Jwt
    }

    async fn authenticate(&self, request: &Credentials<'_>) -> Result<Arc<Principal>, AuthError> {
        self.verify(request.bearer()?).map(Arc::new)
    }

    fn recheck_every(&self) -> Option<Duration> {
        None
    }
}

/// Signs tokens.
pub struct JwtSigner {
    algorithm: JwtAlgorithm,
    key: EncodingKey,
}

impl fmt::Debug for JwtSigner {
    /// Leaves the key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSigner").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl JwtSigner {
    /// Makes a signer of the secret of an `Hs…` algorithm.
    ///
    /// # Errors
    ///
    /// Fails for an algorithm that has no secret.
    pub fn with_secret(algorithm: JwtAlgorithm, secret: &str) -> Result<Self, InvalidKey> {
        if algorithm.of_library().family() != AlgorithmFamily::Hmac {
            return Err(InvalidKey("does not go with the algorithm"));
        }
        crypto::install();
        Ok(Self { algorithm, key: EncodingKey::from_secret(secret.as_bytes()) })
    }

    /// Makes a signer of the private key of another algorithm, in PEM.
    ///
    /// # Errors
    ///
    /// Fails when the text is no such key.
    pub fn with_private_pem(algorithm: JwtAlgorithm, pem: &str) -> Result<Self, InvalidKey> {
        let pem = pem.as_bytes();
        let (key, problem) = match algorithm.of_library().family() {
            AlgorithmFamily::Rsa => {
                (EncodingKey::from_rsa_pem(pem), "is not a private RSA key in PEM")
            }
            AlgorithmFamily::Ec => (
                EncodingKey::from_ec_pem(pem),
                "is not a private key in PEM (PKCS #8); `openssl pkcs8 -topk8 -nocrypt` makes one",
            ),
            AlgorithmFamily::Hmac | AlgorithmFamily::Ed => {
                return Err(InvalidKey("does not go with the algorithm"));
            }
        };
        crypto::install();
        Ok(Self { algorithm, key: key.map_err(|_| InvalidKey(problem))? })
    }

    /// Returns a token with these claims that expires after `life`.
    ///
    /// # Errors
    ///
    /// Fails when the key turns out to be none of the algorithm.
    pub fn sign(
        &self,
        mut claims: Map<String, Value>,
        life: Duration,
    ) -> Result<String, InvalidKey> {
        let now = get_current_timestamp();
        claims.insert("iat".to_owned(), now.into());
        claims.insert("exp".to_owned(), now.saturating_add(life.as_secs()).into());
        self.encode(&claims)
    }

    fn encode(&self, claims: &Map<String, Value>) -> Result<String, InvalidKey> {
        encode(&Header::new(self.algorithm.of_library()), claims, &self.key)
            .map_err(|_| InvalidKey("cannot sign with the algorithm"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECRET: &str = "canary-canary-canary-canary-canary";

    fn options() -> JwtOptions {
        JwtOptions {
            algorithm: JwtAlgorithm::Hs256,
            key: JwtKey::Secret(SECRET.to_owned()),
            issuer: None,
            audience: Vec::new(),
            leeway: Duration::from_secs(5),
        }
    }

    fn token(claims: Value) -> String {
        let Value::Object(claims) = claims else { panic!("claims are an object") };
        JwtSigner::with_secret(JwtAlgorithm::Hs256, SECRET).unwrap().encode(&claims).unwrap()
    }

    fn verify(options: &JwtOptions, claims: Value) -> Result<Principal, AuthError> {
        JwtAuth::new(options).unwrap().verify(&token(claims))
    }

    #[test]
    fn times_count_with_the_leeway_and_a_claim_that_is_no_time_is_refused() {
        let now = get_current_timestamp();
        let read = |claims| verify(&options(), claims).map(|_| ());
        assert_eq!(read(json!({})), Ok(()));
        assert_eq!(read(json!({"exp": now - 1, "nbf": now + 1})), Ok(()));
        assert_eq!(read(json!({"exp": now - 20})), Err(AuthError::Expired));
        assert_eq!(read(json!({"nbf": now + 20})), Err(AuthError::Invalid));
        assert_eq!(read(json!({"exp": "never"})), Err(AuthError::Invalid));
        assert_eq!(read(json!({"sub": 7})), Err(AuthError::Invalid));
        assert!(read(json!({"sub": ["me"]})).is_err());
        let wide = JwtOptions { leeway: Duration::from_hours(1), ..options() };
        assert_eq!(verify(&wide, json!({"exp": now - 60})), Err(AuthError::Expired));
    }

    #[test]
    fn issuer_and_audience_have_to_be_there_once_they_are_configured() {
        let strict = JwtOptions {
            issuer: Some("me".to_owned()),
            audience: vec!["us".to_owned(), "them".to_owned()],
            ..options()
        };
        let read = |claims| verify(&strict, claims).is_ok();
        assert!(read(json!({"iss": "me", "aud": "us"})));
        assert!(read(json!({"iss": "me", "aud": ["others", "them"]})));
        assert!(!read(json!({"iss": "me", "aud": "others"})));
        assert!(!read(json!({"iss": "me"})) && !read(json!({"aud": "us"})));
        assert!(!read(json!({"iss": ["me", 1], "aud": "us"})));
        assert!(verify(&options(), json!({"aud": "whoever", "iss": "you"})).is_ok());
    }

    #[test]
    fn tokens_that_are_not_signed_by_the_key_tell_nothing() {
        let auth = JwtAuth::new(&options()).unwrap();
        let good = token(json!({"scope": ["*"]}));
        let other = JwtSigner::with_secret(JwtAlgorithm::Hs256, &SECRET.repeat(2)).unwrap();
        assert_eq!(auth.verify(&other.encode(&Map::new()).unwrap()), Err(AuthError::Invalid));
        let longer = JwtSigner::with_secret(JwtAlgorithm::Hs384, SECRET).unwrap();
        assert_eq!(auth.verify(&longer.encode(&Map::new()).unwrap()), Err(AuthError::Invalid));
        for bad in ["", "x", "a.b.c", "..", &format!("{good}.x"), &good[..good.len() - 2]] {
            let refused = auth.verify(bad);
            assert!(refused.is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_that_do_not_go_with_the_algorithm_are_refused_and_none_is_ever_printed() {
        let with = |algorithm, key| JwtAuth::new(&JwtOptions { algorithm, key, ..options() });
        let secret = || JwtKey::Secret(SECRET.to_owned());
        let pem = |text: &str| JwtKey::PublicPem(text.to_owned());
        assert!(with(JwtAlgorithm::Rs256, secret()).is_err());
        assert!(with(JwtAlgorithm::Hs256, JwtKey::Secret("short".to_owned())).is_err());
        let public = "-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----";
        assert!(with(JwtAlgorithm::Hs256, JwtKey::Secret(public.repeat(2))).is_err());
        assert!(with(JwtAlgorithm::Rs256, pem(public)).is_err());
        assert!(with(JwtAlgorithm::Es256, pem("canary")).is_err());
        let auth = with(JwtAlgorithm::Hs512, secret()).unwrap();
        let signer = JwtSigner::with_secret(JwtAlgorithm::Hs256, SECRET).unwrap();
        let printed = format!("{auth:?} {signer:?} {:?}", options());
        assert!(!printed.contains("canary"), "{printed}");
    }
}
