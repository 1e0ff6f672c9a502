//! Values that must not be shown: keys, tokens, and URLs that carry passwords.

use std::fmt;

/// What stands for a secret wherever a value is shown.
pub(super) const MASK: &str = "***";

/// A key or token that cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text from being printed.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the secret, for whoever needs it to sign or to compare.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({MASK})")
    }
}

/// A Postgres connection URL that does not show its password when printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// Accepts a URL whose scheme is `postgres` or `postgresql`.
    ///
    /// The rest is left to the driver, which knows more forms than a check
    /// here could list.
    pub fn parse(url: &str) -> Option<Self> {
        let rest =
            ["postgres://", "postgresql://"].iter().find_map(|scheme| url.strip_prefix(scheme))?;
        (!rest.is_empty()).then(|| Self(url.to_owned()))
    }

    /// Returns the whole URL, password included, for the driver only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretUrl {
    /// Shows where the database is: host, port and name. User, password and
    /// parameters stay out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Parts::of(&self.0) {
            Some(Parts { scheme, place, .. }) => write!(f, "{scheme}://{place}"),
            None => f.write_str("postgres://…"),
        }
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretUrl({self})")
    }
}

/// Shows a URL with a mask in place of user and password, and of all that
/// follows the path. One whose parts cannot be told apart is a mask altogether.
pub(super) fn masked_url(url: &str) -> String {
    let Some(Parts { scheme, has_user, place, has_more }) = Parts::of(url) else {
        return MASK.to_owned();
    };
    let user = if has_user { format!("{MASK}@") } else { String::new() };
    let more = if has_more { format!("?{MASK}") } else { String::new() };
    format!("{scheme}://{user}{place}{more}")
}

/// A URL taken apart by what may be shown of it.
struct Parts<'a> {
    scheme: &'a str,
    has_user: bool,
    /// Host, port and path.
    place: &'a str,
    /// Whether a query or a fragment follows.
    has_more: bool,
}

impl<'a> Parts<'a> {
    /// Takes a URL apart, unless that is doubtful: a password may hold any
    /// character, and some are careless about encoding it.
    fn of(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (has_user, place) = match rest.split_once('@') {
            None => (false, rest),
            Some((user, place)) if !user.contains(['/', '?', '#']) && !place.contains('@') => {
                (true, place)
            }
            Some(_) => return None,
        };
        let end = place.find(['?', '#']).unwrap_or(place.len());
        let has_more = end < place.len();
        Some(Self { scheme, has_user, place: &place[..end], has_more })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_postgres_urls_are_accepted() {
        assert!(SecretUrl::parse("postgres://localhost/x").is_some());
        assert!(SecretUrl::parse("postgresql://localhost/x").is_some());
        for other in ["mysql://localhost/x", "postgres:/x", "postgres://", "localhost", ""] {
            assert!(SecretUrl::parse(other).is_none(), "{other}");
        }
    }

    #[test]
    fn printing_shows_the_place_and_never_the_password() {
        let shown = |url| format!("{:?}", SecretUrl::parse(url).unwrap());
        assert_eq!(
            shown("postgres://u:canary@db:5433/app?x=1"),
            "SecretUrl(postgres://db:5433/app)"
        );
        assert_eq!(shown("postgres://db/app?password=canary"), "SecretUrl(postgres://db/app)");
        for odd in [
            "postgres://u:canary/x@db/app",
            "postgres://u:canary?x@db/app",
            "postgres://u:can@ary@db/app",
            "postgres://db/app?password=c@nary",
        ] {
            assert_eq!(shown(odd), "SecretUrl(postgres://…)", "{odd}");
        }
    }

    #[test]
    fn a_masked_url_shows_that_there_is_something_to_mask() {
        assert_eq!(masked_url("postgres://u:canary@db/x?a=canary"), "postgres://***@db/x?***");
        assert_eq!(masked_url("https://h:8443/a"), "https://h:8443/a");
        for odd in ["https://u:c?x@canary", "canary", "https://a@b/canary@c"] {
            assert_eq!(masked_url(odd), "***", "{odd}");
        }
    }

    #[test]
    fn a_secret_is_a_mask_however_it_is_printed() {
        let secret = Secret::new("canary");
        assert_eq!(format!("{secret} {secret:?}"), "*** Secret(***)");
        assert_eq!(secret.expose(), "canary");
    }
}
