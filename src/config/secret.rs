//! Database URLs, which carry passwords.

use std::fmt;

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
    /// parameters stay out. A URL whose parts cannot be told apart for certain
    /// is hidden altogether, since a password may hold any character.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("postgres", ""));
        let place = match rest.split_once('@') {
            None => rest,
            Some((user, place)) if !user.contains(['/', '?', '#']) && !place.contains('@') => place,
            Some(_) => return write!(f, "{scheme}://…"),
        };
        let end = place.find(['?', '#']).unwrap_or(place.len());
        write!(f, "{scheme}://{}", &place[..end])
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretUrl({self})")
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
}
