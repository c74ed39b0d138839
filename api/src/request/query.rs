//! Query of a URL: each parameter at most once, none unknown. No value is ever repeated in a response.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use super::parameters::{Flag, Number, Parameter};
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

    /// Refuses parameters that are in none of the lists `known`.
    pub(crate) fn only(&self, known: &[&[Parameter]]) -> Result<(), Problem> {
        let known: Vec<_> = known.iter().copied().flatten().map(|parameter| parameter.name).collect();
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
    pub(crate) fn flag(&self, Flag { name, .. }: &Flag) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::invalid(format!("{name} must be true or false."))),
        }
    }

    pub(crate) fn number(&self, number: &Number<u32>) -> Result<u32, Problem> {
        Ok(self.number_in(number.name, number.from, number.to)?.unwrap_or(number.default))
    }

    pub(crate) fn maybe_number(&self, number: &Number<()>) -> Result<Option<u32>, Problem> {
        self.number_in(number.name, number.from, number.to)
    }

    fn number_in(&self, name: &str, from: u32, to: u32) -> Result<Option<u32>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (from..=to).contains(number));
        let wrong = || Problem::invalid(format!("{name} must be a whole number from {from} to {to}."));
        number.map(Some).ok_or_else(wrong)
    }

    /// A parameter as `T`.
    pub(crate) fn checked<T, E>(
        &self,
        parameter: &Parameter,
        check: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Problem> {
        let name = parameter.name;
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
        let number = |name, to| Number { name, what: "", from: 1, to, default: 3 };
        let flag = |name| Flag { name, what: "" };
        assert_eq!(query.get("a"), Some("x y z"));
        assert_eq!(query.number(&number("limit", 100)).unwrap(), 7);
        assert_eq!(query.number(&number("absent", 100)).unwrap(), 3);
        assert!(query.number(&number("limit", 5)).is_err() && query.number(&number("a", 5)).is_err());
        assert!(query.flag(&flag("live")).unwrap() && !query.flag(&flag("absent")).unwrap());
        assert!(query.flag(&flag("a")).is_err());
        assert!(
            query
                .only(&[&[flag("a").parameter(), flag("limit").parameter()], &[flag("live").parameter()]])
                .is_ok()
        );
        assert!(query.only(&[&[flag("a").parameter()]]).is_err());
        assert!(Query::parse(Some("a=1&a=2")).is_err() && Query::parse(Some("a=%ff")).is_err());
        assert!(Query::parse(None).unwrap().only(&[]).is_ok());
    }
}
