//! Where a server is, and how requests to it are spelled.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;

use tokio::net::{TcpStream, lookup_host};
use url::Url;

use super::BenchError;

/// Base of a server: `http://host[:port][/prefix]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    host: String,
    port: u16,
    /// Stands before every path; empty or begins with a slash and ends without.
    prefix: String,
}

impl FromStr for BaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
        if url.scheme() != "http" {
            return Err("must begin with http://; a measurement speaks plain HTTP".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must hold no user; --token says who is asking".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("must end with its path".to_owned());
        }
        let host = url.host_str().ok_or("must name a host")?.to_owned();
        let prefix = url.path().trim_end_matches('/').to_owned();
        Ok(Self { host, port: url.port_or_known_default().unwrap_or(80), prefix })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}{}", self.host, self.port, self.prefix)
    }
}

/// Credentials that are sent with every request.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl FromStr for Token {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("must be visible ASCII without spaces");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Token {
    /// Leaves the token out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A server with its name resolved.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    base: BaseUrl,
    address: SocketAddr,
    token: Option<Token>,
}

impl Endpoint {
    /// Resolves a server's name and takes the first address that answers.
    pub(super) async fn find(base: &BaseUrl, token: Option<&Token>) -> Result<Self, BenchError> {
        let unreachable = |source| BenchError::Unreachable { url: base.to_string(), source };
        // Written like in a URL, an IPv6 address has brackets.
        let host = base.host.trim_start_matches('[').trim_end_matches(']');
        let addresses = lookup_host((host, base.port)).await.map_err(unreachable)?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(_) => return Ok(Self { base: base.clone(), address, token: token.cloned() }),
                Err(error) => last = error,
            }
        }
        Err(unreachable(last))
    }

    /// Opens a connection.
    pub(super) async fn dial(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address).await?;
        // A request is one small write, which must not wait for the answer to the last.
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Spells a request.
    pub(super) fn request(&self, method: &str, path: &str, body: Option<&str>) -> Vec<u8> {
        let BaseUrl { host, port, prefix } = &self.base;
        let credentials = self
            .token
            .as_ref()
            .map_or(String::new(), |Token(token)| format!("Authorization: Bearer {token}\r\n"));
        let content = body.map_or(String::new(), |body| {
            let length = body.len();
            format!("Content-Type: application/json\r\nContent-Length: {length}\r\n")
        });
        let body = body.unwrap_or_default();
        let request = format!(
            "{method} {prefix}{path} HTTP/1.1\r\nHost: {host}:{port}\r\n{credentials}{content}\r\n{body}"
        );
        request.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_a_plain_http_url_without_credentials() {
        let base: BaseUrl = "http://localhost:3721/".parse().unwrap();
        assert_eq!(base.to_string(), "http://localhost:3721");
        let base: BaseUrl = "http://[::1]/api/v1".parse().unwrap();
        assert_eq!(base.to_string(), "http://[::1]:80/api/v1");
        for wrong in
            ["https://a", "localhost:3721", "http://u:p@a", "http://a/?x=1", "x", "http://"]
        {
            assert!(wrong.parse::<BaseUrl>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_cannot_break_out_of_its_header_and_is_not_shown() {
        assert!("a b".parse::<Token>().is_err());
        assert!("a\r\nX: y".parse::<Token>().is_err());
        assert!("".parse::<Token>().is_err());
        assert!(!format!("{:?}", "canary".parse::<Token>().unwrap()).contains("canary"));
    }

    #[test]
    fn a_request_is_spelled_with_prefix_length_and_token() {
        let endpoint = Endpoint {
            base: "http://h:1/p".parse().unwrap(),
            address: ([127, 0, 0, 1], 1).into(),
            token: Some("t".parse().unwrap()),
        };
        let request = String::from_utf8(endpoint.request("POST", "/tasks", Some("{}"))).unwrap();
        assert_eq!(
            request,
            "POST /p/tasks HTTP/1.1\r\nHost: h:1\r\nAuthorization: Bearer t\r\n\
             Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
        );
        assert!(endpoint.request("GET", "/", None).ends_with(b"Bearer t\r\n\r\n"));
    }
}
