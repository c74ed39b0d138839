//! `GET /v1/admin/flavours`: the flavours of the policy, each with its prefix and its counts, from the last census; with
//! `?live=true` counted now.

use broker_domain::policy::ANY_FLAVOUR;
use http::StatusCode;
use serde_json::json;

use super::Operator;
use crate::request::parameters::LIVE;
use crate::request::query::Query;
use crate::response::Response;
use crate::response::bodies::{Flavour, Flavours};
use crate::response::problem::Problem;

impl Operator {
    pub(super) async fn flavours(&self, query: &Query) -> Result<Response, Problem> {
        query.only(&[&[LIVE.parameter()]])?;
        let policy = self.policy.now()?;
        let census = self.census(query.flag(&LIVE)?).await?;
        let of_policy = policy.flavours().iter().map(|(name, flavour)| {
            let is_default = policy.default_flavour() == Some(name);
            let counts = census.by_flavour.get(name.as_str());
            Flavour::new(name.as_str(), Some(&flavour.prefix), is_default, counts)
        });
        // Without a policy all is one flavour.
        let rest = census.by_flavour.get(ANY_FLAVOUR);
        let rest = rest.or_else(|| policy.flavours().is_empty().then_some(&census.by_status));
        let any = Flavour::new(ANY_FLAVOUR, None, policy.default_flavour().is_none(), rest);
        let flavours = of_policy.chain([any]).collect();
        let body = Flavours { flavours, as_of: census.as_of.as_secs() };
        Ok(Response::json(StatusCode::OK, json!(body), "listed"))
    }
}
