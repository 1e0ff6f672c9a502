//! From the configuration to whoever finds out who is calling.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::{
    Authenticate, ForwardAuth, ForwardAuthOptions, JwtAlgorithm, JwtAuth, JwtKey, JwtOptions, Open,
};
use crate::config::{self, AuthSettings, Config, ForwardAuthSettings, JwtSettings};

/// Makes the authenticator that the configuration asks for.
///
/// # Errors
///
/// Fails when a key or URL cannot be used, naming where it is configured.
pub fn authenticator(config: &Config) -> anyhow::Result<Arc<dyn Authenticate>> {
    Ok(match &config.auth {
        AuthSettings::None => Arc::new(Open::default()),
        AuthSettings::Jwt(settings) => Arc::new(jwt_auth(settings)?),
        AuthSettings::Custom(settings) => {
            let made = ForwardAuth::new(forward_auth_options(settings));
            let place = config.place_of("auth.custom.url");
            Arc::new(made.map_err(|error| place.refuse(error.to_string()))?)
        }
    })
}

/// Makes what reads the tokens of mode `jwt`.
///
/// # Errors
///
/// Fails when the key is none, naming where it is configured.
pub fn jwt_auth(settings: &JwtSettings) -> anyhow::Result<JwtAuth> {
    let options = JwtOptions {
        algorithm: jwt_algorithm(settings.algorithm),
        key: match &settings.key {
            config::JwtKey::Secret(secret) => JwtKey::Secret(secret.expose().to_owned()),
            config::JwtKey::PublicKey(pem) => JwtKey::PublicPem(pem.expose().to_owned()),
        },
        issuer: settings.issuer.clone(),
        audience: settings.audience.clone(),
        leeway: Duration::from_secs(settings.leeway_seconds),
    };
    let made = JwtAuth::new(&options);
    made.map_err(|invalid| settings.key_place.refuse(format!("the key {invalid}")).into())
}

/// Returns the algorithm a configuration names.
pub const fn jwt_algorithm(named: config::JwtAlgorithm) -> JwtAlgorithm {
    match named {
        config::JwtAlgorithm::Hs256 => JwtAlgorithm::Hs256,
        config::JwtAlgorithm::Hs384 => JwtAlgorithm::Hs384,
        config::JwtAlgorithm::Hs512 => JwtAlgorithm::Hs512,
        config::JwtAlgorithm::Rs256 => JwtAlgorithm::Rs256,
        config::JwtAlgorithm::Rs384 => JwtAlgorithm::Rs384,
        config::JwtAlgorithm::Rs512 => JwtAlgorithm::Rs512,
        config::JwtAlgorithm::Ps256 => JwtAlgorithm::Ps256,
        config::JwtAlgorithm::Ps384 => JwtAlgorithm::Ps384,
        config::JwtAlgorithm::Ps512 => JwtAlgorithm::Ps512,
        config::JwtAlgorithm::Es256 => JwtAlgorithm::Es256,
        config::JwtAlgorithm::Es384 => JwtAlgorithm::Es384,
    }
}

fn forward_auth_options(settings: &ForwardAuthSettings) -> ForwardAuthOptions {
    ForwardAuthOptions {
        url: settings.url.expose().to_owned(),
        timeout: Duration::from_millis(settings.timeout_ms),
        hold: Duration::from_millis(settings.cache_ms),
        recheck: Duration::from_millis(settings.recheck_ms),
    }
}
