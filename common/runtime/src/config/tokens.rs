//! Bearer tokens as configured.

use std::collections::BTreeSet;

use broker_domain::{TenantName, TrackId};
use secrecy::{ExposeSecret as _, SecretString};

/// A token of fewer different characters is easily guessed.
const FEW_CHARACTERS: usize = 8;
/// What ends a track prefix: `acme` is also the beginning of `acmecorp-1`.
const SEPARATORS: &[u8] = b"-_.:@";
/// The least length of a token, in bytes.
const MIN_TOKEN_BYTES: usize = 16;

/// The mark behind the name of a token that may only read.
const READ_ONLY: &str = ":ro";

/// A named bearer token. Its secret is never shown.
#[derive(Clone, Debug)]
pub struct Token {
    name: String,
    tenant: TenantName,
    track_prefix: Option<String>,
    read_only: bool,
    secret: SecretString,
}

impl Token {
    /// The name in logs and audit lines.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who it speaks for: tokens that are rotated may be one tenant's.
    pub const fn tenant(&self) -> &TenantName {
        &self.tenant
    }

    /// The prefix of the tracks that the token is bound to, if any.
    pub fn track_prefix(&self) -> Option<&str> {
        self.track_prefix.as_deref()
    }

    /// Whether it may only read.
    pub const fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// The secret, for comparison.
    pub fn secret(&self) -> &[u8] {
        self.secret.expose_secret().as_bytes()
    }
}

/// The tokens of one role, in the order of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Tokens(Vec<Token>);

impl Tokens {
    /// Parses `name=token`, `name@prefix=token`, `name:ro=token` or `name:tenant=who=token`, with `@prefix` behind `who`,
    /// separated by commas or newlines. The error shows no part of an entry, only its position: what stands before a `=` may be
    /// a token without its name, in base64 with its padding.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut tokens: Vec<Token> = Vec::new();
        let entries = text.split([',', '\n']).map(str::trim).filter(|entry| !entry.is_empty());
        for (position, entry) in (1..).zip(entries) {
            let split = |text: &'static str| move || format!("entry {position} is not {text}");
            let (left, secret) = entry.split_once('=').ok_or_else(split("name=token"))?;
            let (named, tenant, secret) =
                match left.strip_suffix(":tenant").filter(|name| !name.contains('@')) {
                    Some(name) => {
                        let (tenant, secret) =
                            secret.split_once('=').ok_or_else(split("name:tenant=who=token"))?;
                        (name, Some(tenant), secret)
                    }
                    None => (left, None, secret),
                };
            let (named, read_only) =
                named.strip_suffix(READ_ONLY).map_or((named, false), |name| (name, true));
            let (before, prefix) = match tenant.unwrap_or(named).split_once('@') {
                Some((before, prefix)) if !prefix.is_empty() => (before, Some(prefix.to_owned())),
                Some(_) => return Err(format!("entry {position} has an empty track prefix")),
                None => (tenant.unwrap_or(named), None),
            };
            let (name, tenant) = if tenant.is_some() { (named, before) } else { (before, before) };
            let track_prefix = prefix;
            // Each beginning of a track id is one itself.
            if track_prefix.as_ref().is_some_and(|prefix| TrackId::new(prefix.as_str()).is_err()) {
                return Err(format!(
                    "the track prefix of entry {position} begins no track id: those are of A-Z a-z 0-9 . _ : @ -, at most 128"
                ));
            }
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
                return Err(format!("entry {position} has a name that is not of A-Z a-z 0-9 . _ -"));
            }
            if tokens.iter().any(|token| token.name == name) {
                return Err(format!("the name of entry {position} is used twice"));
            }
            if secret.len() < MIN_TOKEN_BYTES || !secret.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(format!(
                    "the token of entry {position} is not at least {MIN_TOKEN_BYTES} visible ASCII characters"
                ));
            }
            let tenant = TenantName::new(tenant).map_err(|error| format!("entry {position}: {error}"))?;
            tokens.push(Token {
                name: name.to_owned(),
                tenant,
                track_prefix,
                read_only,
                secret: SecretString::from(secret),
            });
        }
        Ok(Self(tokens))
    }

    /// These, if none may only read: a platform that may not allocate has no use.
    pub(super) fn of_platforms(self) -> Result<Self, String> {
        match self.0.iter().find(|token| token.read_only) {
            Some(token) => {
                Err(format!("the token {:?} is read-only, which only an operator's may be", token.name))
            }
            None => Ok(self),
        }
    }

    /// That none of these is one of `others`, who have another role.
    pub(super) fn must_differ_from(&self, others: &Self) -> Result<(), String> {
        let pairs = self.0.iter().flat_map(|own| others.0.iter().map(move |other| (own, other)));
        match pairs.into_iter().find(|(own, other)| own.secret() == other.secret()) {
            Some((own, other)) => Err(format!(
                "{:?} is the same token as {:?} of another role: who has one has both",
                own.name, other.name
            )),
            None => Ok(()),
        }
    }

    /// What is unwise about them, each in a sentence that shows no token.
    pub(super) fn doubts(&self) -> impl Iterator<Item = String> {
        self.0.iter().enumerate().flat_map(|(position, token)| {
            let distinct = token.secret().iter().collect::<BTreeSet<_>>().len();
            let weak = distinct < FEW_CHARACTERS;
            let unbound = token.track_prefix().is_some_and(|prefix| {
                prefix.bytes().last().is_some_and(|last| !SEPARATORS.contains(&last))
            });
            let twin = self.0[..position].iter().find(|before| before.secret() == token.secret());
            let name = &token.name;
            [
                weak.then(|| format!("the token {name:?} has only {distinct} different characters: make one at random")),
                unbound.then(|| format!("the track prefix of {name:?} does not end with one of - _ . : @, so it also begins longer names")),
                twin.map(|twin| format!("{name:?} is the same token as {:?}, so its name is never seen", twin.name)),
            ]
            .into_iter()
            .flatten()
        })
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All tokens.
    pub fn iter(&self) -> impl Iterator<Item = &Token> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_may_only_read_says_so_behind_its_name() {
        let tokens = Tokens::parse("ops=0123456789abcdef, viewer:ro=0123456789abcdeg").unwrap();
        let shown: Vec<_> = tokens.iter().map(|token| (token.name(), token.is_read_only())).collect();
        assert_eq!(shown, [("ops", false), ("viewer", true)]);
        assert!(tokens.of_platforms().unwrap_err().contains("viewer"));
        for bad in ["viewer:rw=0123456789abcdef", ":ro=0123456789abcdef", "a:ro:ro=0123456789abcdef"] {
            let error = Tokens::parse(bad).unwrap_err();
            assert!(error.contains("name") && !error.contains("0123456789abcdef"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_token_speaks_for_its_name_unless_it_says_for_whom() {
        let text = "a=0123456789abcdef, b@lab-=0123456789abcdeg\nold:tenant=acme=0123456789abcdeh,new:tenant=acme@lab-=k=123456789abcdei";
        let tokens = Tokens::parse(text).unwrap();
        let shown: Vec<_> = tokens
            .iter()
            .map(|token| (token.name(), token.tenant().as_str(), token.track_prefix()))
            .collect();
        let expected = [
            ("a", "a", None),
            ("b", "b", Some("lab-")),
            ("old", "acme", None),
            ("new", "acme", Some("lab-")),
        ];
        assert_eq!(shown, expected);
        assert_eq!(tokens.iter().last().map(Token::secret), Some(&b"k=123456789abcdei"[..]));
    }

    #[test]
    fn a_prefix_that_begins_no_track_is_refused() {
        let long = format!("a@{}=0123456789abcdef", "x".repeat(129));
        for bad in
            ["a=0123456789abcdef,acme@lab/=0123456789abcdef", "a:tenant=acme@lab x=0123456789abcdef", &long]
        {
            let error = Tokens::parse(bad).unwrap_err();
            assert!(
                error.contains("track prefix of entry") && !error.contains("0123456789abcdef"),
                "{error}"
            );
        }
        assert!(Tokens::parse("a@lab-7.x_y:z@=0123456789abcdef").is_ok());
    }

    #[test]
    fn a_token_without_its_name_is_refused_unseen() {
        let bare = "azNKOXZRMm1YN3BMMHNUeg==";
        for bad in
            [bare.to_owned(), format!("a=0123456789abcdef,{bare}"), format!("{bare}{bare},{bare}{bare}")]
        {
            let error = Tokens::parse(&bad).unwrap_err();
            assert!(error.contains("entry") && !error.contains("azNKOXZR"), "{error}");
        }
    }

    #[test]
    fn what_says_a_tenant_badly_is_refused_without_the_token() {
        for bad in [
            "a:tenant=0123456789abcdef",
            "a:tenant==0123456789abcdef",
            "a:tenant=b c=0123456789abcdef",
            "a:x=0123456789abcdef",
        ] {
            let error = Tokens::parse(bad).unwrap_err();
            assert!(!error.contains("0123456789abcdef"), "{bad}: {error}");
        }
    }

    #[test]
    fn what_is_unwise_about_tokens_is_told_without_them() {
        let tokens = Tokens::parse(
            "a=aaaaaaaaaaaaaaaa,b@acme=0123456789abcdef,c=0123456789abcdef,d@lab-=k3J9vQ2mX7pL0sTz",
        )
        .unwrap();
        let doubts: Vec<_> = tokens.doubts().collect();
        assert_eq!(doubts.len(), 3, "{doubts:?}");
        assert!(
            doubts[0].contains("\"a\"")
                && doubts[1].contains("prefix of \"b\"")
                && doubts[2].contains("\"c\""),
            "{doubts:?}"
        );
        assert!(!doubts.concat().contains("0123456789abcdef"));
        let admins = Tokens::parse("ops=0123456789abcdef").unwrap();
        let error = tokens.must_differ_from(&admins).unwrap_err();
        assert!(error.contains("ops") && !error.contains("0123456789abcdef"), "{error}");
        assert!(admins.must_differ_from(&Tokens::default()).is_ok());
    }
}
