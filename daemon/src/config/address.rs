//! Addresses of other nodes as people write them: a host by name or number, and a port.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Where a node can be dialled. A name is looked up at each dial, never here: it may have other
/// addresses by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    host: String,
    port: u16,
}

impl NodeAddress {
    /// Longest name that the domain name system has.
    const HOST_BYTES_MAX: usize = 253;

    /// Reads `host:port`, or `host` where there is a port to assume. An IPv6 address stands in
    /// brackets, or nobody could tell where its port begins.
    pub fn parse(text: &str, port_assumed: Option<u16>) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']')?;
                host.parse::<Ipv6Addr>().ok()?;
                (
                    host,
                    after.strip_prefix(':').or(after.is_empty().then_some(""))?,
                )
            }
            None => text.split_once(':').unwrap_or((text, "")),
        };
        // A colon with nothing behind it is a port that was forgotten, not one to assume.
        let port = match port {
            "" if !text.ends_with(':') => port_assumed?,
            port if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok()?,
            _ => return None,
        };
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let is_name = (1..=Self::HOST_BYTES_MAX).contains(&host.len()) && host.bytes().all(is_host);
        (is_name || text.starts_with('[')).then(|| Self {
            host: host.to_owned(),
            port,
        })
    }

    /// Whether others can find it: neither "any address" nor "any port".
    pub fn can_be_dialled(&self) -> bool {
        let is_any = self
            .host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_unspecified());
        self.port != 0 && !is_any
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, port: Option<u16>) -> Option<String> {
        NodeAddress::parse(text, port).map(|address| address.to_string())
    }

    #[test]
    fn names_and_numbers_are_addresses() {
        for (text, expected) in [
            ("node-1.example:7601", "node-1.example:7601"),
            ("10.0.0.1:7601", "10.0.0.1:7601"),
            ("[::1]:7601", "[::1]:7601"),
            ("node-1", "node-1:7600"),
            ("[fe80::2]", "[fe80::2]:7600"),
        ] {
            assert_eq!(read(text, Some(7_600)).as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_cannot_be_dialled_is_no_address() {
        for text in [
            "",
            ":7600",
            "a:",
            "a:b",
            "a:70000",
            "a:+1",
            "a b:1",
            "http://a:1",
            "::1:7600",
            "[::1",
            "[a]:1",
            "[::1]x",
            "[::1]:",
        ] {
            assert_eq!(read(text, Some(7_600)), None, "{text:?}");
        }
        assert_eq!(read("node-1", None), None);
        for text in ["0.0.0.0:7600", "[::]:7600", "a:0"] {
            let address = NodeAddress::parse(text, None).unwrap();
            assert!(!address.can_be_dialled(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_what_is_written_is_read_back(text: String) {
            if let Some(address) = NodeAddress::parse(&text, Some(1)) {
                assert_eq!(NodeAddress::parse(&address.to_string(), None), Some(address));
            }
        }
    }
}
