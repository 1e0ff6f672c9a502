//! Connecting to other services: plain HTTP or TLS, with ring and the system's
//! roots.

use std::sync::Arc;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

/// Returns how to speak TLS as a client.
///
/// The provider is named here instead of being installed for the whole
/// process, where an embedding program may have another.
pub(crate) fn client_config() -> Result<ClientConfig, rustls::Error> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a root certificate of the system cannot be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        tracing::warn!("the system has no root certificates; requests over https will fail");
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// Returns what connects to services over plain HTTP or TLS.
pub(crate) fn connector() -> Result<HttpsConnector<HttpConnector>, rustls::Error> {
    let builder = HttpsConnectorBuilder::new().with_tls_config(client_config()?);
    Ok(builder.https_or_http().enable_http1().build())
}
