//! Where the webhooks of tasks may lead.
//!
//! Whoever may create a task chooses a URL, and the server asks it from
//! inside its own network. So the addresses of that network are out of reach
//! unless the operator says otherwise.

use std::net::IpAddr;

use ipnet::IpNet;
use url::{Host, Url};

use super::address::is_public;

/// Longest URL of a webhook, in bytes.
pub const TARGET_URL_BYTES: usize = 2048;

/// A target that the operator lets through although it is not public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedTarget {
    /// A host by its name, at whatever addresses it is.
    Host(String),
    /// Addresses, whatever name they go by.
    Network(IpNet),
}

impl AllowedTarget {
    /// Parses a host's name, an address or a range such as `10.0.0.0/8`.
    pub fn parse(text: &str) -> Option<Self> {
        let network = text.parse::<IpNet>().ok();
        let address = text.parse::<IpAddr>().ok();
        if let Some(network) = network.or(address.map(IpNet::from)) {
            // In its IPv6 spelling an IPv4 range would contain nothing.
            let is_plain = network.addr().to_canonical() == network.addr();
            return is_plain.then_some(Self::Network(network));
        }
        match Host::parse(text).ok()? {
            // Anything the parser changed, such as 0x7f.1, was no name.
            Host::Domain(name) if name == text.to_ascii_lowercase() && !name.contains('*') => {
                Some(Self::Host(without_final_dot(&name).to_owned()))
            }
            Host::Domain(_) | Host::Ipv4(_) | Host::Ipv6(_) => None,
        }
    }
}

/// Why a URL cannot be the target of a webhook. The text never repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It is too long.
    #[error("is limited to {TARGET_URL_BYTES} bytes")]
    TooLong,
    /// It is no absolute URL.
    #[error("must be an absolute URL without white space")]
    NoUrl,
    /// Its scheme is another.
    #[error("must begin with http:// or https://")]
    Scheme,
    /// It has a user or a password in it.
    #[error("must not contain a user name or a password")]
    Credentials,
    /// It leads to an address that is not public.
    #[error("must not lead to a private, local or reserved address")]
    Private,
}

/// Which targets webhooks of tasks may have.
#[derive(Debug, Clone, Default)]
pub struct TargetPolicy {
    allows_private: bool,
    allowed: Vec<AllowedTarget>,
}

impl TargetPolicy {
    /// Makes the policy that lets public targets through, those in `allowed`,
    /// and every other if `allows_private`.
    pub fn new(allows_private: bool, allowed: Vec<AllowedTarget>) -> Self {
        Self { allows_private, allowed }
    }

    /// Refuses a URL that can be told to be no target without asking for the
    /// addresses of its host.
    pub fn check(&self, text: &str) -> Result<(), TargetError> {
        let url = parse_target(text)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::Credentials);
        }
        let is_admitted = match url.host() {
            Some(Host::Domain(name)) => {
                let name = without_final_dot(name);
                // Names of the host itself, whatever a resolver says of them.
                let is_local = name == "localhost" || name.ends_with(".localhost");
                !is_local || self.allows_private || self.names(name)
            }
            Some(Host::Ipv4(address)) => self.admits("", address.into()),
            Some(Host::Ipv6(address)) => self.admits("", address.into()),
            None => return Err(TargetError::NoUrl),
        };
        if is_admitted { Ok(()) } else { Err(TargetError::Private) }
    }

    /// Tells whether the host of that name may be reached at an address.
    pub fn admits(&self, host: &str, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allows_private
            || is_public(address)
            || self.names(without_final_dot(host))
            || self.allowed.iter().any(|allowed| match allowed {
                AllowedTarget::Network(network) => network.contains(&address),
                AllowedTarget::Host(_) => false,
            })
    }

    fn names(&self, host: &str) -> bool {
        self.allowed.iter().any(|allowed| match allowed {
            AllowedTarget::Host(name) => name.eq_ignore_ascii_case(host),
            AllowedTarget::Network(_) => false,
        })
    }
}

/// Parses a URL of the form every webhook has, a configured one included.
///
/// Hosts spelled as numbers, in whatever base, are addresses afterwards.
pub fn parse_target(text: &str) -> Result<Url, TargetError> {
    if text.len() > TARGET_URL_BYTES {
        return Err(TargetError::TooLong);
    }
    // The parser would drop them, and show another URL than it was given.
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(TargetError::NoUrl);
    }
    let url = Url::parse(text).map_err(|_| TargetError::NoUrl)?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(TargetError::Scheme),
    }
}

fn without_final_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowing(allowed: &[&str]) -> TargetPolicy {
        let parse = |text: &&str| AllowedTarget::parse(text).unwrap();
        TargetPolicy::new(false, allowed.iter().map(parse).collect())
    }

    #[test]
    fn a_target_is_an_absolute_http_url_without_credentials() {
        let policy = TargetPolicy::default();
        for good in ["http://a.example", "HTTPS://a.example:8443/x?y#z", "http://1.1.1.1/"] {
            assert_eq!(policy.check(good), Ok(()), "{good}");
        }
        let long = format!("http://a.example/{}", "x".repeat(TARGET_URL_BYTES));
        for (bad, why) in [
            ("", TargetError::NoUrl),
            ("/hook", TargetError::NoUrl),
            ("a.example/hook", TargetError::NoUrl),
            ("http://", TargetError::NoUrl),
            ("http:// a.example", TargetError::NoUrl),
            (" http://a.example", TargetError::NoUrl),
            ("http://a.example/\n", TargetError::NoUrl),
            ("http://a.example:99999", TargetError::NoUrl),
            ("ftp://a.example", TargetError::Scheme),
            ("file:///etc/passwd", TargetError::Scheme),
            ("http://user@a.example", TargetError::Credentials),
            ("http://:secret@a.example", TargetError::Credentials),
            (&long, TargetError::TooLong),
        ] {
            assert_eq!(policy.check(bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn private_addresses_are_seen_however_they_are_spelled() {
        let policy = TargetPolicy::default();
        for bad in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://0/",
            "http://[::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://localhost:3721/",
            "http://a.LOCALHOST./",
            "http://１２７.0.0.1/",
        ] {
            assert_eq!(policy.check(bad), Err(TargetError::Private), "{bad}");
            assert_eq!(TargetPolicy::new(true, Vec::new()).check(bad), Ok(()), "{bad}");
        }
    }

    #[test]
    fn an_operator_lets_through_hosts_addresses_and_ranges() {
        let private = "10.1.2.3".parse().unwrap();
        assert!(!TargetPolicy::default().admits("hooks.internal", private));
        for allowed in ["hooks.internal", "HOOKS.internal.", "10.1.2.3", "10.1.9.9/16"] {
            assert!(allowing(&[allowed]).admits("hooks.internal", private), "{allowed}");
            assert!(!allowing(&[allowed]).admits("other", "10.2.0.1".parse().unwrap()));
        }
        assert!(allowing(&["10.0.0.0/8"]).admits("", "::ffff:10.1.2.3".parse().unwrap()));
        assert_eq!(allowing(&["127.0.0.1"]).check("http://127.1/"), Ok(()));
        assert_eq!(allowing(&["localhost"]).check("http://localhost/"), Ok(()));
        assert!(allowing(&["fd00::/8"]).admits("", "fd12::1".parse().unwrap()));
        assert!(allowing(&["::/0"]).admits("", "fd12::1".parse().unwrap()));
        assert!(!allowing(&["::/0"]).admits("", private));
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "h/8",
            "h:80",
            "http://h",
            "0x7f.1",
            "2130706433",
            "[::1]",
            "::ffff:10.0.0.0/104",
            "a b",
            "*",
        ] {
            assert_eq!(AllowedTarget::parse(bad), None, "{bad}");
        }
    }
}
