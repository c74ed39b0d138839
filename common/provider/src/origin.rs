//! Resolution of references to the provider's own origin (RFC 3986): the path and query that result are requested at our own
//! base, so the token goes nowhere else.
//!
//! Case, a default port, a dot at the end of the host, and user info do not count in the comparison of origins. Neither does
//! `http` instead of our `https`, both at their default ports: a provider behind a proxy that ends TLS names its pages so.

use http::Uri;
use url::Url;

/// Where a reference leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Leads {
    /// To this URL at our own base.
    Here(Uri),
    /// To another origin, this one.
    Elsewhere(String),
}

/// Resolves `reference` against the URL that it came from, which is at our own base.
pub(super) fn resolve(reference: &str, from: &Uri) -> Result<Leads, String> {
    let base = Url::parse(&from.to_string()).map_err(|error| format!("{from}: {error}"))?;
    let url = base.join(reference).map_err(|error| format!("{reference:?} is no URL: {error}"))?;
    if !is_same(&base, &url) {
        return Ok(Leads::Elsewhere(url.origin().ascii_serialization()));
    }
    let mut parts = from.clone().into_parts();
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let path = path.parse().map_err(|error| format!("{reference:?} has no usable path: {error}"))?;
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map(Leads::Here).map_err(|error| format!("{reference:?}: {error}"))
}

fn is_same(ours: &Url, theirs: &Url) -> bool {
    let host = |url: &Url| url.host_str().map(|host| host.trim_end_matches('.').to_owned());
    let origin = |url: &Url| (url.scheme().to_owned(), url.port_or_known_default());
    let behind_tls = ours.scheme() == "https" && theirs.scheme() == "http";
    let at_default_ports = ours.port().is_none() && theirs.port().is_none();
    host(ours) == host(theirs) && (origin(ours) == origin(theirs) || behind_tls && at_default_ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(reference: &str, from: &str) -> Result<Leads, String> {
        resolve(reference, &from.parse().unwrap())
    }

    const FROM: &str = "https://provider.example/api/accounts?page=1";

    #[test]
    fn a_reference_is_resolved_against_the_page_that_names_it() {
        for (reference, path) in [
            ("https://provider.example/api/accounts?page=2", "/api/accounts?page=2"),
            ("/api/accounts?page=2", "/api/accounts?page=2"),
            ("?page=2", "/api/accounts?page=2"),
            ("accounts?page=2", "/api/accounts?page=2"),
            ("./accounts?page=2#top", "/api/accounts?page=2"),
            ("../v2/accounts?page=2", "/v2/accounts?page=2"),
            ("//provider.example/api/accounts?page=2", "/api/accounts?page=2"),
            ("https:accounts?page=2", "/api/accounts?page=2"),
            ("?cursor=a b|c", "/api/accounts?cursor=a%20b|c"),
            ("?cursor=a%2Fb%3D%3D", "/api/accounts?cursor=a%2Fb%3D%3D"),
            ("https://provider.example", "/"),
        ] {
            let expected = format!("https://provider.example{path}").parse().unwrap();
            assert_eq!(resolved(reference, FROM), Ok(Leads::Here(expected)), "{reference}");
        }
    }

    #[test]
    fn another_spelling_of_the_host_is_the_same_host_and_our_own_is_asked() {
        for same in [
            "https://PROVIDER.example/x",
            "HTTPS://provider.example/x",
            "https://provider.example:443/x",
            "https://provider.example./x",
            "https://provider.example:/x",
            "https://user:word@provider.example/x",
            "http://provider.example/x",
            "http://provider.example:80/x",
        ] {
            let here = "https://provider.example/x".parse().unwrap();
            assert_eq!(resolved(same, FROM), Ok(Leads::Here(here)), "{same}");
        }
        let here = "http://[::1]:8080/x".parse().unwrap();
        assert_eq!(resolved("HTTP://[0:0::1]:8080/x", "http://[::1]:8080/"), Ok(Leads::Here(here)));
    }

    #[test]
    fn another_origin_is_not_ours() {
        for foreign in [
            "https://elsewhere.example/api/x",
            "https://provider.example:444/x",
            "http://provider.example:8080/x",
            "https://provider.example@elsewhere.example/x",
            "https://provider.example.elsewhere.example/x",
            "//elsewhere.example/x",
            "\\\\elsewhere.example/x",
            "ftp://provider.example/x",
            "file:///etc/passwd",
            "data:,x",
        ] {
            assert!(matches!(resolved(foreign, FROM), Ok(Leads::Elsewhere(_))), "{foreign}");
        }
        // The token of a plain connection is not to be the reason for another one.
        assert!(matches!(resolved("https://p.example/x", "http://p.example/"), Ok(Leads::Elsewhere(_))));
        assert!(matches!(resolved("http://127.0.0.1:2/", "http://127.0.0.1:1/"), Ok(Leads::Elsewhere(_))));
        assert!(resolved("https://[::1/x", FROM).is_err());
    }
}
