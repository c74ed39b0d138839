//! Settings of networks, web origins and rates.

use std::net::IpAddr;

use ipnet::IpNet;

use super::read::{ConfigError, SettingsReader};

/// A set of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Parses addresses and CIDR networks, separated by commas.
    pub fn parse(text: &str) -> Result<Self, String> {
        let network = |entry: &str| {
            let parsed = entry.parse().or_else(|_| entry.parse::<IpAddr>().map(IpNet::from));
            parsed.map_err(|_| format!("{entry:?} is neither an address nor a network such as 10.0.0.0/8"))
        };
        entries(text).map(network).collect::<Result<_, _>>().map(Self)
    }

    /// The networks of a list that is part of the program; what is none is left out.
    pub fn of(list: &[&str]) -> Self {
        Self(list.iter().filter_map(|network| network.parse().ok()).collect())
    }

    /// Whether `address` is one of them.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// The web pages that may read responses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    any: bool,
    listed: Vec<String>,
}

impl Origins {
    /// Parses origins (`https://host`, `http://host:port`), separated by commas; `*` is every one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut origins = Self::default();
        for entry in entries(text) {
            let host = entry.strip_prefix("https://").or_else(|| entry.strip_prefix("http://"));
            let is_host = |host: &str| {
                !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic() && !b"/?#@*".contains(&b))
            };
            match host {
                _ if entry == "*" => origins.any = true,
                Some(host) if is_host(host) => origins.listed.push(entry.to_ascii_lowercase()),
                Some(_) | None => {
                    return Err(format!("{entry:?} is not an origin such as https://labs.example"));
                }
            }
        }
        Ok(origins)
    }

    /// Whether no origin is allowed.
    pub const fn is_empty(&self) -> bool {
        !self.any && self.listed.is_empty()
    }

    /// Whether pages of `origin`, as a browser names it, may read responses.
    pub fn allow(&self, origin: &str) -> bool {
        self.any || self.listed.iter().any(|listed| listed.eq_ignore_ascii_case(origin))
    }
}

/// The rate limit of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests a second on average.
    pub per_s: u32,
    /// Requests at once after a pause.
    pub burst: u32,
}

/// The limit that two settings say; a rate of 0 is none.
pub(super) fn rate_limit(
    read: &SettingsReader<'_>,
    rate: &str,
    burst: &str,
) -> Result<Option<RateLimit>, ConfigError> {
    let (per_s, burst) = (read.number(rate)?, read.number(burst)?);
    Ok((per_s > 0).then_some(RateLimit { per_s, burst }))
}

fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_single_addresses_are_read() {
        let networks = Networks::parse("10.0.0.0/8, 192.0.2.1,2001:db8::/32 ").unwrap();
        let contains = |address: &str| networks.contain(address.parse().unwrap());
        assert!(contains("10.255.0.1") && contains("192.0.2.1") && contains("2001:db8::5"));
        assert!(!contains("11.0.0.1") && !contains("192.0.2.2") && !contains("::1"));
        assert!(!Networks::parse("").unwrap().contain(IpAddr::from([127, 0, 0, 1])));
        for bad in ["10.0.0.0/33", "host", "10.0.0", "10.0.0.1 10.0.0.2"] {
            assert!(Networks::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn origins_are_a_scheme_and_a_host() {
        let origins = Origins::parse("https://Labs.example, http://localhost:3000").unwrap();
        assert!(origins.allow("https://labs.example") && origins.allow("http://localhost:3000"));
        assert!(!origins.allow("https://labs.example.evil") && !origins.allow("null"));
        assert!(Origins::parse("*").unwrap().allow("https://anything.example"));
        for bad in
            ["labs.example", "https://labs.example/", "https://", "ftp://x", "https://*.example", "null"]
        {
            assert!(Origins::parse(bad).is_err(), "{bad}");
        }
    }
}
