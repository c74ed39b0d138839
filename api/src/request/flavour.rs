//! Flavour of an allocate: a request that names one is a request with its prefix.
//!
//! Header and body may both name it, and must agree. The default of the policy is for requests that name neither a flavour
//! nor a prefix.

use broker_domain::policy::{ANY_FLAVOUR, Policy};
use broker_domain::{FlavourName, NamePrefix};

use crate::response::codes::Code;
use crate::response::problem::Problem;

/// The flavour that a request names.
pub(crate) fn named(
    in_header: Option<FlavourName>,
    in_body: Option<FlavourName>,
) -> Result<Option<FlavourName>, Problem> {
    match (in_header, in_body) {
        (Some(header), Some(body)) if header != body => {
            Err(Problem::invalid("X-Sandbox-Flavour and the body's flavour differ: send one of them."))
        }
        (header, body) => Ok(header.or(body)),
    }
}

/// The prefix of the sandboxes that a request is for.
pub(crate) fn prefix(
    policy: &Policy,
    named: Option<&FlavourName>,
    prefix: Option<NamePrefix>,
) -> Result<Option<NamePrefix>, Problem> {
    let default = if prefix.is_none() { policy.default_flavour() } else { None };
    let Some(name) = named.or(default) else { return Ok(prefix) };
    let flavour = policy.flavours().get(name).ok_or_else(|| unknown(policy))?;
    match prefix {
        Some(prefix) if prefix != flavour.prefix => {
            Err(Problem::invalid("X-Sandbox-Name-Prefix is not the prefix of the flavour: send one of them."))
        }
        Some(_) | None => Ok(Some(flavour.prefix.clone())),
    }
}

/// The flavour with exactly this prefix, as a label of metrics.
pub(crate) fn label(policy: &Policy, prefix: Option<&NamePrefix>) -> String {
    let found = policy.flavours().iter().find(|(_, flavour)| Some(&flavour.prefix) == prefix);
    found.map_or(ANY_FLAVOUR, |(name, _)| name.as_str()).to_owned()
}

fn unknown(policy: &Policy) -> Problem {
    let known = policy.flavours().keys().map(FlavourName::as_str).take(20).collect::<Vec<_>>().join(", ");
    let message = match known.as_str() {
        "" => "The policy names no flavours.".to_owned(),
        known => format!("The policy names no such flavour; it names {known}."),
    };
    Problem::new(Code::UnknownFlavour, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy::parse(
            "default_flavour = 'small'\n[flavour.small]\nprefix = 'lab-'\n[flavour.gpu]\nprefix = 'gpu-'",
        )
        .unwrap()
    }

    fn name(text: &str) -> Option<FlavourName> {
        Some(FlavourName::new(text).unwrap())
    }

    #[test]
    fn a_request_that_names_a_flavour_is_one_with_its_prefix() {
        let found = |flavour: Option<FlavourName>, text: Option<&str>| {
            let given = text.map(|text| NamePrefix::new(text).unwrap());
            prefix(&policy(), flavour.as_ref(), given).map(|prefix| prefix.map(|prefix| prefix.to_string()))
        };
        assert_eq!(found(name("gpu"), None).unwrap().as_deref(), Some("gpu-"));
        assert_eq!(found(name("gpu"), Some("gpu-")).unwrap().as_deref(), Some("gpu-"));
        assert_eq!(found(None, None).unwrap().as_deref(), Some("lab-"), "the default");
        assert_eq!(found(None, Some("x")).unwrap().as_deref(), Some("x"), "no default beside a prefix");
        assert_eq!(found(name("gpu"), Some("lab-")).unwrap_err().code(), Code::ValidationError);
        assert_eq!(found(name("gpu"), Some("gpu-1")).unwrap_err().code(), Code::ValidationError);
        assert_eq!(found(name("huge"), None).unwrap_err().code(), Code::UnknownFlavour);
        assert_eq!(prefix(&Policy::default(), None, None).unwrap(), None);
        assert_eq!(
            prefix(&Policy::default(), name("gpu").as_ref(), None).unwrap_err().code(),
            Code::UnknownFlavour
        );
    }

    #[test]
    fn header_and_body_agree_or_the_request_is_refused() {
        assert_eq!(named(name("gpu"), None).unwrap(), name("gpu"));
        assert_eq!(named(None, name("gpu")).unwrap(), name("gpu"));
        assert_eq!(named(name("gpu"), name("gpu")).unwrap(), name("gpu"));
        assert_eq!(named(name("gpu"), name("small")).unwrap_err().code(), Code::ValidationError);
        assert_eq!(named(None, None).unwrap(), None);
    }

    #[test]
    fn a_label_is_a_name_of_the_policy() {
        let of = |text: &str| label(&policy(), Some(&NamePrefix::new(text).unwrap()));
        assert_eq!([of("gpu-"), of("gpu"), of("x")], ["gpu", "any", "any"]);
        assert_eq!(label(&policy(), None), "any");
    }
}
