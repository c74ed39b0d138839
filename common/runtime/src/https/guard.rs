//! Guard of a client's connections: the addresses that a host resolves to are looked at before one of them is connected
//! to, each time, so a name that changes what it resolves to does not get past it.
//!
//! Public addresses pass. Loopback, private, link-local and other special ones pass only if the operator lists them. An
//! IPv6 address that carries an IPv4 address is as special as that one.

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower_service::Service;

use crate::config::Networks;

/// Addresses that are not public (IANA's registries of special-purpose addresses, and multicast).
static SPECIAL: LazyLock<Networks> = LazyLock::new(|| {
    Networks::of(&[
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
        "::/127",
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    ])
});

/// A resolver of names that yields only addresses which may be connected to.
#[derive(Clone)]
pub struct Guard {
    resolver: GaiResolver,
    allowed: Arc<Networks>,
}

/// A host none of whose addresses may be connected to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{host} is at {address}, which is not public and not in BROKER_HOOK_NETWORKS")]
pub struct NotAllowed {
    /// The host.
    pub host: String,
    /// One of its addresses.
    pub address: IpAddr,
}

impl Guard {
    /// A guard that also lets through what `allowed` contains.
    pub fn new(allowed: Networks) -> Self {
        Self { resolver: GaiResolver::new(), allowed: Arc::new(allowed) }
    }

    /// Whether `address` may be connected to.
    pub fn allows(&self, address: IpAddr) -> bool {
        is_public(address) || self.allowed.contain(address.to_canonical())
    }

    /// Checks a URL's host that is an address itself: those are not resolved. A name passes, to be looked at then.
    pub fn check_host(&self, host: &str) -> Result<(), NotAllowed> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match bare.parse::<IpAddr>() {
            Ok(address) if !self.allows(address) => Err(NotAllowed { host: host.to_owned(), address }),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

type Resolved = Result<std::vec::IntoIter<SocketAddr>, Box<dyn std::error::Error + Send + Sync>>;

impl Service<Name> for Guard {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Resolved> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.resolver.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (host, guard) = (name.as_str().to_owned(), self.clone());
        let resolving = self.resolver.call(name);
        Box::pin(async move {
            let found: Vec<SocketAddr> = resolving.await?.collect();
            let allowed: Vec<_> = found.iter().copied().filter(|at| guard.allows(at.ip())).collect();
            match (allowed.is_empty(), found.first()) {
                (true, Some(at)) => Err(NotAllowed { host, address: at.ip() }.into()),
                (true, None) | (false, _) => Ok(allowed.into_iter()),
            }
        })
    }
}

fn is_public(address: IpAddr) -> bool {
    let carried = match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => carried(address).map(IpAddr::V4),
    };
    !SPECIAL.contain(address) && carried.is_none_or(|carried| !SPECIAL.contain(carried))
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, NAT64 or 6to4.
fn carried(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = address.octets();
    let at = |from: usize| {
        let bytes: Option<[u8; 4]> = octets.get(from..from + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Ipv4Addr::from)
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _] => at(12),
        [0x64, 0xff9b, ..] => at(12),
        [0x2002, ..] => at(2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(networks: &str, address: &str) -> bool {
        Guard::new(Networks::parse(networks).unwrap()).allows(address.parse().unwrap())
    }

    #[test]
    fn only_public_addresses_pass_and_what_the_operator_lists() {
        for public in
            ["8.8.8.8", "192.0.1.1", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
        {
            assert!(allows("", public), "{public}");
        }
        let special = [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:a9fe:a9fe",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::a00:1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "::ffff:0:127.0.0.1",
        ];
        for special in special {
            assert!(!allows("", special), "{special}");
            assert!(allows("0.0.0.0/0,::/0", special), "{special}");
        }
        assert!(allows("10.1.2.0/24", "10.1.2.3") && !allows("10.1.2.0/24", "10.1.3.3"));
        assert!(allows("127.0.0.0/8", "::ffff:127.0.0.1"), "the same place");
    }

    #[test]
    fn a_host_that_is_an_address_is_checked_as_it_stands() {
        let guard = Guard::new(Networks::default());
        assert!(guard.check_host("[::1]").is_err() && guard.check_host("127.0.0.1").is_err());
        assert!(guard.check_host("localhost").is_ok() && guard.check_host("1.1.1.1").is_ok());
    }

    #[tokio::test]
    async fn a_name_is_judged_by_what_it_resolves_to() {
        let resolve = |networks: &str| {
            let mut guard = Guard::new(Networks::parse(networks).unwrap());
            guard.call("localhost".parse().unwrap())
        };
        let error = resolve("").await.unwrap_err().to_string();
        assert!(error.starts_with("localhost is at ") && error.contains("BROKER_HOOK_NETWORKS"), "{error}");
        let found: Vec<_> = resolve("127.0.0.0/8, ::1").await.unwrap().collect();
        assert!(!found.is_empty() && found.iter().all(|at| at.ip().is_loopback()), "{found:?}");
        let only_v4: Vec<_> = resolve("127.0.0.1").await.unwrap().collect();
        assert!(only_v4.iter().all(SocketAddr::is_ipv4), "{only_v4:?}");
    }
}
