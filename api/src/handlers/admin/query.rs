//! Query of a URL: each parameter at most once, none unknown. No value is ever repeated in a response.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use percent_encoding::percent_decode_str;

use crate::response::problem::Problem;

/// Decoded parameters.
#[derive(Debug)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    /// Parses `name=value&…`; a plus is a space.
    pub(crate) fn parse(query: Option<&str>) -> Result<Self, Problem> {
        let mut parameters = BTreeMap::new();
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        for pair in pairs {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if parameters.insert(decode(name)?, decode(value)?).is_some() {
                return Err(Problem::invalid("A parameter of the query is repeated."));
            }
        }
        Ok(Self(parameters))
    }

    /// Refuses parameters that are not `known`.
    pub(crate) fn only(&self, known: &[&'static str]) -> Result<(), Problem> {
        if self.0.keys().all(|name| known.contains(&name.as_str())) {
            return Ok(());
        }
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Err(Problem::invalid(format!("The query has an unknown parameter; known here: {known}.")))
    }

    /// All parameters but `others`, in one order.
    pub(crate) fn but(&self, others: &[&str]) -> String {
        let rest = self.0.iter().filter(|(name, _)| !others.contains(&name.as_str()));
        rest.map(|(name, value)| format!("{name:?}={value:?}")).collect::<Vec<_>>().join("&")
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// `true`, `false`, or absent, which is false.
    pub(crate) fn flag(&self, name: &'static str) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::invalid(format!("{name} must be true or false."))),
        }
    }

    pub(crate) fn number(
        &self,
        name: &'static str,
        range: RangeInclusive<u32>,
    ) -> Result<Option<u32>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| range.contains(number));
        let (from, to) = (range.start(), range.end());
        let wrong = || Problem::invalid(format!("{name} must be a whole number from {from} to {to}."));
        number.map(Some).ok_or_else(wrong)
    }

    /// A parameter as `T`.
    pub(crate) fn checked<T, E>(
        &self,
        name: &'static str,
        check: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Problem> {
        let checked = self.get(name).map(check).transpose();
        checked.map_err(|_| Problem::invalid(format!("{name} is not valid.")))
    }
}

fn decode(text: &str) -> Result<String, Problem> {
    let text = text.replace('+', " ");
    let decoded = percent_decode_str(&text).decode_utf8();
    decoded.map(Into::into).map_err(|_| Problem::invalid("The query is not UTF-8 text."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_and_its_mistakes_are_named() {
        let query = Query::parse(Some("a=x%20y+z&limit=7&live=true&")).unwrap();
        assert_eq!(query.get("a"), Some("x y z"));
        assert_eq!(query.number("limit", 1..=100).unwrap(), Some(7));
        assert!(query.number("limit", 1..=5).is_err() && query.number("a", 1..=5).is_err());
        assert!(query.flag("live").unwrap() && !query.flag("absent").unwrap() && query.flag("a").is_err());
        assert!(query.only(&["a", "limit", "live"]).is_ok() && query.only(&["a"]).is_err());
        assert!(Query::parse(Some("a=1&a=2")).is_err() && Query::parse(Some("a=%ff")).is_err());
        assert!(Query::parse(None).unwrap().only(&[]).is_ok());
    }
}
