//! Authentication: bearer tokens (RFC 6750), several of each role, each with a name.
//!
//! Invariant: a presented token is compared with every configured one in constant time, as digests of one length, so the
//! time reveals neither a token's beginning, its length nor its place in the list. Tokens are never logged; their names are.
//! A track token authenticates the platform; the track it acts for is the platform's assertion, bounded by the token's track
//! prefix if it has one.

use std::sync::Arc;

use broker_domain::{TenantName, TrackId};
use broker_runtime::config::{Config, Token};
use http::header::{self, HeaderMap};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use crate::request::headers::single;
use crate::response::codes::Code;
use crate::response::problem::Problem;
use crate::routes::Effect;

/// The caller of a local broker without tokens.
const ANYONE: &str = "anyone";

/// The caller of a track's route.
#[derive(Clone, Debug)]
pub(crate) struct TrackCaller {
    /// The track that it acts for.
    pub(crate) track: TrackId,
    /// Whose token it has.
    pub(crate) tenant: TenantName,
}

/// The role of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenRole {
    /// A platform that allocates for its tracks.
    Track,
    /// An operator.
    Admin,
}

/// The identity of a caller.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The token's name, for logs.
    pub(crate) name: Arc<str>,
    /// Whether the token may only read.
    pub(crate) read_only: bool,
    /// Who it speaks for.
    pub(crate) tenant: TenantName,
    track_prefix: Option<Arc<str>>,
}

impl Identity {
    /// Checks that the token may have this effect.
    pub(crate) fn may(&self, effect: Effect) -> Result<(), Problem> {
        match effect {
            Effect::Changes if self.read_only => Err(Problem::new(
                Code::Forbidden,
                "The token is read-only: it may look at everything and change nothing.",
            )),
            Effect::Reads | Effect::Changes => Ok(()),
        }
    }

    /// Checks that the token may act for `track`.
    pub(crate) fn may_act_for(&self, track: &TrackId) -> Result<(), Problem> {
        match &self.track_prefix {
            Some(prefix) if !track.as_str().starts_with(&**prefix) => {
                Err(Problem::new(Code::Forbidden, "The token is bound to other tracks."))
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[derive(Clone, Debug)]
struct KnownToken {
    role: TokenRole,
    digest: [u8; 32],
    identity: Identity,
}

/// The configured tokens.
#[derive(Clone, Debug)]
pub(crate) struct Authenticator {
    known: Vec<KnownToken>,
    /// On a development machine without tokens every caller may do everything, as this one.
    open: Option<Identity>,
}

impl Authenticator {
    pub(crate) fn new(config: &Config) -> Self {
        let of_role = |role| {
            move |token: &Token| KnownToken {
                role,
                digest: Sha256::digest(token.secret()).into(),
                identity: Identity {
                    name: token.name().into(),
                    read_only: token.is_read_only(),
                    tenant: token.tenant().clone(),
                    track_prefix: token.track_prefix().map(Into::into),
                },
            }
        };
        let known: Vec<_> = config
            .track_tokens
            .iter()
            .map(of_role(TokenRole::Track))
            .chain(config.admin_tokens.iter().map(of_role(TokenRole::Admin)))
            .collect();
        let anyone = || {
            TenantName::new(ANYONE).map(|tenant| Identity {
                name: ANYONE.into(),
                read_only: false,
                tenant,
                track_prefix: None,
            })
        };
        Self { open: (config.local && known.is_empty()).then(anyone).and_then(Result::ok), known }
    }

    /// The name of the presented token, if it is a known one of any role.
    pub(crate) fn token_name(&self, headers: &HeaderMap) -> Option<Arc<str>> {
        let digest = Sha256::digest(bearer(headers).ok()?.as_bytes());
        let mut found = 0_u64;
        for (position, known) in (1..).zip(&self.known) {
            found.conditional_assign(&position, digest.as_slice().ct_eq(&known.digest));
        }
        let position = usize::try_from(found).ok()?.checked_sub(1)?;
        self.known.get(position).map(|known| Arc::clone(&known.identity.name))
    }

    /// The identity of the caller, if its token has this role.
    pub(crate) fn authenticate(&self, headers: &HeaderMap, role: TokenRole) -> Result<Identity, Problem> {
        if let Some(anyone) = &self.open {
            return Ok(anyone.clone());
        }
        let presented = bearer(headers)?;
        let digest = Sha256::digest(presented.as_bytes());
        // Positions from 1; 0 is none. Every token is compared, even after a match.
        let (mut in_role, mut in_any) = (0_u64, 0_u64);
        for (position, known) in (1..).zip(&self.known) {
            let same = digest.as_slice().ct_eq(&known.digest);
            in_any.conditional_assign(&position, same);
            in_role.conditional_assign(&position, same & Choice::from(u8::from(known.role == role)));
        }
        let found =
            usize::try_from(in_role).ok().and_then(|position| self.known.get(position.checked_sub(1)?));
        match found {
            Some(known) => Ok(known.identity.clone()),
            None if in_any > 0 => Err(Problem::new(Code::Forbidden, "The token has another role.")),
            None => Err(unauthorized("The token is not known.")),
        }
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let value = single(headers, header::AUTHORIZATION.as_str())
        .map_err(|_| unauthorized("Authorization is not one line of text."))?;
    let value = value.ok_or_else(|| unauthorized("Authorization is missing."))?;
    let (scheme, token) =
        value.split_once(' ').ok_or_else(|| unauthorized("Authorization is not a bearer token."))?;
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(token.trim_matches(' '))
    } else {
        Err(unauthorized("Authorization is not a bearer token."))
    }
}

fn unauthorized(message: &'static str) -> Problem {
    Problem::new(Code::Unauthorized, message)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use http::HeaderValue;

    use super::*;

    const PLATFORM: &str = "platform-token-0123";
    const NEXT: &str = "platform-token-4567";
    const ACME: &str = "acme-token-01234567";
    const OPS: &str = "ops-token-0123456789";

    fn authenticator(pairs: &[(&str, &str)]) -> Authenticator {
        let strings: BTreeMap<_, _> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Authenticator::new(&Config::read(&strings).unwrap())
    }

    fn configured() -> Authenticator {
        let tracks = format!("platform={PLATFORM}, next={NEXT}, acme@acme-={ACME}");
        authenticator(&[("BROKER_TRACK_TOKENS", &tracks), ("BROKER_ADMIN_TOKENS", &format!("ops={OPS}"))])
    }

    fn presenting(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap())])
    }

    fn name(value: &str, role: TokenRole) -> Result<String, Code> {
        let identity = configured().authenticate(&presenting(value), role);
        identity.map(|identity| identity.name.to_string()).map_err(|problem| problem.code())
    }

    #[test]
    fn every_token_of_a_role_is_valid_at_once_and_known_by_its_name() {
        assert_eq!(name(&format!("Bearer {PLATFORM}"), TokenRole::Track), Ok("platform".to_owned()));
        assert_eq!(name(&format!("bearer  {NEXT}"), TokenRole::Track), Ok("next".to_owned()));
        assert_eq!(name(&format!("Bearer {OPS}"), TokenRole::Admin), Ok("ops".to_owned()));
    }

    #[test]
    fn a_token_of_another_role_is_forbidden() {
        assert_eq!(name(&format!("Bearer {OPS}"), TokenRole::Track), Err(Code::Forbidden));
        assert_eq!(name(&format!("Bearer {PLATFORM}"), TokenRole::Admin), Err(Code::Forbidden));
    }

    #[test]
    fn what_is_no_known_bearer_token_is_unauthorized() {
        let longer = format!("Bearer {PLATFORM}x");
        let shorter = format!("Bearer {}", &PLATFORM[..18]);
        let twice = format!("Bearer Bearer {PLATFORM}");
        let basic = format!("Basic {PLATFORM}");
        for bad in [&longer, &shorter, &twice, &basic, PLATFORM, "Bearer", "Bearer ", ""] {
            assert_eq!(name(bad, TokenRole::Track), Err(Code::Unauthorized), "{bad}");
        }
        let none = configured().authenticate(&HeaderMap::new(), TokenRole::Track);
        assert_eq!(none.unwrap_err().code(), Code::Unauthorized);
        let mut doubled = presenting(&format!("Bearer {PLATFORM}"));
        doubled.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        assert_eq!(
            configured().authenticate(&doubled, TokenRole::Track).unwrap_err().code(),
            Code::Unauthorized
        );
    }

    #[test]
    fn a_bound_token_acts_for_its_own_tracks_only() {
        let identity =
            configured().authenticate(&presenting(&format!("Bearer {ACME}")), TokenRole::Track).unwrap();
        assert!(identity.may_act_for(&TrackId::new("acme-1").unwrap()).is_ok());
        let problem = identity.may_act_for(&TrackId::new("other-1").unwrap()).unwrap_err();
        assert_eq!(problem.code(), Code::Forbidden);
    }

    #[test]
    fn without_tokens_only_a_local_broker_is_open() {
        let local = authenticator(&[("BROKER_LOCAL", "true")]);
        assert!(local.authenticate(&HeaderMap::new(), TokenRole::Track).is_ok());
        let closed = authenticator(&[]);
        assert!(closed.authenticate(&HeaderMap::new(), TokenRole::Track).is_err());
        let with_tokens =
            authenticator(&[("BROKER_LOCAL", "true"), ("BROKER_TRACK_TOKENS", &format!("a={PLATFORM}"))]);
        assert!(with_tokens.authenticate(&HeaderMap::new(), TokenRole::Track).is_err());
    }

    #[test]
    fn an_authenticator_shows_no_token() {
        let shown = format!("{:?}", configured());
        assert!([PLATFORM, NEXT, ACME, OPS].iter().all(|token| !shown.contains(token)));
    }
}
