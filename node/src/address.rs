//! Addresses as people write them: `host:port`, and also as a URL, as etcd wants its own.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A host and a port. Shown as `host:port`, with brackets around an IPv6 address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
    scheme: Option<Scheme>,
}

/// What a URL began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        })
    }
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not of that form.
    #[error("want HOST:PORT, such as n1.example:2380, 10.0.0.1:2380 or [fd00::1]:2380")]
    Form,
    /// More than a host and a port.
    #[error("want HOST:PORT or http(s)://HOST:PORT with nothing behind it")]
    Path,
    /// Another protocol.
    #[error("want HOST:PORT, or a URL that begins with http:// or https://")]
    Scheme,
    /// Not a number up to 65535.
    #[error("{0:?} is no port: want HOST:PORT")]
    Port(String),
}

impl Address {
    /// The name or address, without brackets. Empty, `*` or an unspecified address where every address of the machine is meant.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port. Zero leaves it to the system.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it began with, if it was a URL.
    pub fn scheme(&self) -> Option<Scheme> {
        self.scheme
    }

    /// Whether it stands for every address of a machine, and so for none that others could use.
    pub fn is_any(&self) -> bool {
        matches!(self.host.as_str(), "" | "*")
            || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
    }

    /// The same host with another port.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        Address { port, ..self.clone() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = match text.split_once("://") {
            None => (None, text),
            Some(("http", rest)) => (Some(Scheme::Http), rest),
            Some(("https", rest)) => (Some(Scheme::Https), rest),
            Some(_) => return Err(AddressError::Scheme),
        };
        let rest = if scheme.is_some() { rest.strip_suffix('/').unwrap_or(rest) } else { rest };
        if rest.contains(['/', '?', '#', '@']) {
            return Err(AddressError::Path);
        }
        let (host, port) = rest.rsplit_once(':').ok_or(AddressError::Form)?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(v6) => v6.parse::<Ipv6Addr>().map_err(|_| AddressError::Form)?.to_string(),
            None if host.contains([':', '[', ']', ',', '"', '\'']) || host.contains(char::is_whitespace) => {
                return Err(AddressError::Form);
            }
            None => host.to_owned(),
        };
        let port = port.parse().map_err(|_| AddressError::Port(port.to_owned()))?;
        Ok(Address { host, port, scheme })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String, AddressError> {
        text.parse::<Address>().map(|address| address.to_string())
    }

    #[test]
    fn hosts_and_urls_are_understood() {
        for (text, address) in [
            ("n1.example:2380", "n1.example:2380"),
            ("10.0.0.1:0", "10.0.0.1:0"),
            ("[fd00::1]:2380", "[fd00::1]:2380"),
            ("[::]:2379", "[::]:2379"),
            (":2379", ":2379"),
            ("*:2379", "*:2379"),
            ("http://n1:2380", "n1:2380"),
            ("https://n1:2380/", "n1:2380"),
            ("https://[::1]:2380", "[::1]:2380"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(address));
        }
        let url: Address = "https://n1:1".parse().unwrap();
        assert_eq!((url.scheme(), url.host(), url.port()), (Some(Scheme::Https), "n1", 1));
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_right_form() {
        for (text, error) in [
            ("nonsense", AddressError::Form),
            ("", AddressError::Form),
            ("fd00::1:2380", AddressError::Form),
            ("[nonsense]:1", AddressError::Form),
            ("a b:1", AddressError::Form),
            ("http://n1", AddressError::Form),
            ("http://n1:1/path", AddressError::Path),
            ("n1:1/", AddressError::Path),
            ("http://user@n1:1", AddressError::Path),
            ("unix://n1:1", AddressError::Scheme),
            ("n1:port", AddressError::Port("port".into())),
            ("n1:65536", AddressError::Port("65536".into())),
        ] {
            assert_eq!(shown(text), Err(error), "{text}");
        }
    }

    #[test]
    fn every_address_of_a_machine_is_none_for_others() {
        for text in [":1", "*:1", "0.0.0.0:1", "[::]:1"] {
            assert!(text.parse::<Address>().unwrap().is_any(), "{text}");
        }
        assert!(!"127.0.0.1:1".parse::<Address>().unwrap().is_any());
    }
}
