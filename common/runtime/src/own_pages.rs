//! Own pages: the check of local mode that a request does not come from a web page of another site.
//!
//! A loopback address is no boundary for a browser: a page of any site may send requests to it, and a name of that site may
//! resolve to it (DNS rebinding). Invariant: in local mode no request of a page of another origin is answered, and
//! none that was sent to another host name. It does not stop programs, which may send any header.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderMap};
use http::uri::Authority;

use crate::config::{Config, Origins};

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It was sent to another name.
    #[error("A local broker is called by a loopback address or localhost only.")]
    OtherHost,
    /// A page of another origin sent it.
    #[error("A local broker answers no pages of other sites.")]
    OtherPage,
}

/// The guard of a local listener.
#[derive(Clone, Debug)]
pub struct OwnPages {
    /// It listens on loopback, so a browser that calls it by another name was sent here by a foreign page.
    on_loopback: bool,
    /// Pages of others that the operator allows.
    origins: Origins,
}

impl OwnPages {
    /// The guard of a broker that listens on `address`; none outside local mode.
    pub fn of(config: &Config, address: SocketAddr) -> Option<Self> {
        let guard = || Self { on_loopback: address.ip().is_loopback(), origins: config.cors_origins.clone() };
        config.local.then(guard)
    }

    /// The guard of a listener on loopback that has no pages.
    pub fn on_loopback() -> Self {
        Self { on_loopback: true, origins: Origins::default() }
    }

    /// That no other site's page is behind a request with these headers, whose target names `authority`.
    pub fn check(&self, headers: &HeaderMap, authority: Option<&Authority>) -> Result<(), Refused> {
        let (host, several) = one(headers, header::HOST.as_str());
        let names = host.into_iter().chain(authority.map(Authority::as_str));
        if self.on_loopback && (several || !names.into_iter().all(is_loopback)) {
            return Err(Refused::OtherHost);
        }
        let (origin, several) = one(headers, header::ORIGIN.as_str());
        if several {
            return Err(Refused::OtherPage);
        }
        if origin.is_some_and(|origin| self.origins.allow(origin)) {
            return Ok(());
        }
        let is_own = |origin: &str| {
            let page = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            page.is_some_and(|page| host.is_some_and(|host| host.eq_ignore_ascii_case(page)))
        };
        let (site, several) = one(headers, "sec-fetch-site");
        let own_site = !several && site.is_none_or(|site| ["same-origin", "none"].contains(&site));
        if origin.is_none_or(is_own) && own_site { Ok(()) } else { Err(Refused::OtherPage) }
    }
}

/// The value of a header, `""` for one that is no text; and whether there are several.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> (Option<&'h str>, bool) {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(|value| value.to_str().unwrap_or_default());
    (first, values.next().is_some())
}

/// Whether a `host[:port]` names this machine and no other.
fn is_loopback(name: &str) -> bool {
    let Some(authority) = name.parse::<Authority>().ok().filter(|_| !name.contains('@')) else {
        return false;
    };
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn answered(headers: &[(&str, &str)]) -> bool {
        let guard = OwnPages { on_loopback: true, origins: Origins::parse("https://labs.example").unwrap() };
        let request =
            headers.iter().fold(Request::builder(), |request, (name, value)| request.header(*name, *value));
        let head = request.body(()).unwrap().into_parts().0;
        guard.check(&head.headers, head.uri.authority()).is_ok()
    }

    #[test]
    fn only_names_of_this_machine_are_answered() {
        for host in ["localhost:8080", "LOCALHOST", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080", "[::1]"] {
            assert!(answered(&[("host", host)]), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:8080",
            "127.0.0.1.evil.example",
            "0.0.0.0:8080",
            "a@127.0.0.1",
            "",
        ] {
            assert!(!answered(&[("host", host)]), "{host}");
        }
        assert!(answered(&[]), "who speaks 1.0 may name none");
    }

    #[test]
    fn only_own_pages_and_allowed_ones_are_answered() {
        let page = |origin: &str, site: &str| {
            let all = [("host", "127.0.0.1:8080"), ("origin", origin), ("sec-fetch-site", site)];
            let sent: Vec<_> = all.into_iter().filter(|(_, value)| !value.is_empty()).collect();
            answered(&sent)
        };
        assert!(page("", "") && page("", "none") && page("", "same-origin"));
        assert!(page("http://127.0.0.1:8080", "same-origin") && page("https://labs.example", "cross-site"));
        for (origin, site) in [
            ("https://evil.example", ""),
            ("null", ""),
            ("http://127.0.0.1:9999", ""),
            ("http://127.0.0.1", "same-site"),
            ("http://127.0.0.1:8080.evil.example", ""),
            ("", "cross-site"),
            ("", "same-site"),
            ("http://127.0.0.1:8080", "cross-site"),
        ] {
            assert!(!page(origin, site), "{origin} {site}");
        }
    }
}
