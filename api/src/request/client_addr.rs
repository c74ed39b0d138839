//! Address of the client behind proxies.
//!
//! Invariant: `X-Forwarded-For` is a claim of its sender, so it counts only as far as trusted proxies wrote it: read from its
//! end, each address is the peer of the one before, and the first that is no trusted proxy is the client.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use broker_runtime::config::Networks;
use http::header::{HeaderMap, HeaderName};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of the client behind a connection from `peer`.
pub(crate) fn address(peer: IpAddr, headers: &HeaderMap, trusted: &Networks) -> IpAddr {
    let mut client = peer.to_canonical();
    // Several lines are one list (RFC 9110, 5.3). A line that is not text ends the trusted part.
    for line in headers.get_all(FORWARDED_FOR).iter().rev() {
        for hop in line.to_str().unwrap_or_default().rsplit(',') {
            if !trusted.contain(client) {
                return client;
            }
            match hop_address(hop.trim()) {
                Some(address) => client = address.to_canonical(),
                None => return client,
            }
        }
    }
    client
}

/// An address as proxies write it: alone, in brackets, or with a port.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let alone = hop.parse::<IpAddr>().ok();
    let with_port = || hop.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || hop.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::from);
    alone.or_else(with_port).or_else(in_brackets)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn trusted() -> Networks {
        Networks::parse("10.0.0.0/8, 192.0.2.7, 2001:db8::/32").unwrap()
    }

    fn client(peer: &str, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
        }
        address(peer.parse().unwrap(), &headers, &trusted()).to_string()
    }

    #[test]
    fn a_stranger_cannot_claim_another_address() {
        assert_eq!(client("203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
        assert_eq!(client("203.0.113.9", &[]), "203.0.113.9");
    }

    #[test]
    fn the_last_address_that_no_trusted_proxy_has_is_the_client() {
        assert_eq!(client("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 198.51.100.1, 10.2.3.4"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["1.1.1.1", "198.51.100.1", "192.0.2.7"]), "198.51.100.1");
        assert_eq!(client("::ffff:10.0.0.1", &["::ffff:198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("2001:db8::1", &["2001:db9::1"]), "2001:db9::1");
    }

    #[test]
    fn what_is_no_address_is_not_believed_and_nor_is_what_stands_before_it() {
        assert_eq!(client("10.0.0.1", &["198.51.100.1, unknown"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.1, unknown, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &[""]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["10.0.0.3"]), "10.0.0.3");
    }

    #[test]
    fn a_port_behind_an_address_changes_nothing() {
        assert_eq!(client("10.0.0.1", &["198.51.100.1:4711"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 198.51.100.1:1, 10.2.3.4:65535"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["[2001:db9::1]:4711, [2001:db8::7]:1"]), "2001:db9::1");
        assert_eq!(client("10.0.0.1", &["[2001:db9::1]"]), "2001:db9::1");
        assert_eq!(client("10.0.0.1", &["[::ffff:198.51.100.1]:80"]), "198.51.100.1");
        for bad in [
            "198.51.100.1:",
            "198.51.100.1:65536",
            "[198.51.100.1]",
            "[2001:db9::1",
            "[2001:db9::1]:x",
            ":80",
        ] {
            assert_eq!(client("10.0.0.1", &[bad]), "10.0.0.1", "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_survived_and_a_stranger_never_gains_by_it(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let headers = HeaderMap::from_iter([(FORWARDED_FOR, value)]);
                address("10.0.0.1".parse().unwrap(), &headers, &trusted());
                let stranger: IpAddr = "203.0.113.9".parse().unwrap();
                prop_assert_eq!(address(stranger, &headers, &trusted()), stranger);
            }
        }
    }
}
