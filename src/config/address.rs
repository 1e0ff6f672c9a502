//! Addresses of services: URLs that may carry credentials.

use std::fmt;

use url::Url;

use super::secret::masked_url;

/// An `http` or `https` URL.
///
/// Printing it leaves out what may be secret: user, password and query.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl(String);

impl HttpUrl {
    /// Accepts a URL with the scheme `http` or `https` and a host.
    pub fn parse(text: &str) -> Option<Self> {
        // The parser of browsers forgives more than somebody means.
        let is_plain = text.chars().all(|c| c.is_ascii_graphic() && c != '\\');
        let has_authority = ["http://", "https://"].iter().any(|start| text.starts_with(start));
        let url = Url::parse(text).ok()?;
        (is_plain && has_authority && url.has_host()).then(|| Self(text.to_owned()))
    }

    /// Returns the whole URL, credentials included, for whoever connects.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&masked_url(&self.0))
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpUrl({self})")
    }
}

/// Tells whether a text is a Sentry DSN: a URL with a key for its user and a
/// project for the last part of its path.
pub(super) fn is_dsn(text: &str) -> bool {
    let Some(url) = HttpUrl::parse(text).and_then(|url| Url::parse(url.expose()).ok()) else {
        return false;
    };
    let project = url.path().rsplit('/').next().unwrap_or_default();
    !url.username().is_empty() && !project.is_empty() && url.query().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_one_can_post_to_are_accepted() {
        for text in ["http://h", "https://u:p@h.example:8443/a/b?c=d", "http://[::1]:80/"] {
            assert!(HttpUrl::parse(text).is_some(), "{text}");
        }
        for text in
            ["", "h", "http://", "ftp://h", "http:h", "https://h:99999", "http://a b", "http:\\\\h"]
        {
            assert!(HttpUrl::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn printing_a_url_leaves_out_credentials_and_query() {
        let url = HttpUrl::parse("https://u:canary@h.example/path?token=canary").unwrap();
        assert_eq!(format!("{url}"), "https://***@h.example/path?***");
        assert_eq!(format!("{url:?}"), "HttpUrl(https://***@h.example/path?***)");
        assert!(url.expose().contains("canary"));
    }

    #[test]
    fn a_dsn_has_a_key_and_a_project() {
        assert!(is_dsn("https://key@o1.ingest.sentry.io/42"));
        assert!(is_dsn("http://key:old@localhost:9000/a/1"));
        for text in ["https://sentry.io/42", "https://key@sentry.io/", "key@sentry.io/1", "x"] {
            assert!(!is_dsn(text), "{text}");
        }
    }
}
