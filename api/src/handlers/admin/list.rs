//! `GET /v1/admin/sandboxes`: a page of the pool, by state.
//!
//! A page may hold fewer than `limit`, even none, and still have a `next_cursor`: one call reads for a tenth of a second. The
//! last page has none.

use std::time::Duration;

use broker_domain::policy::ANY_FLAVOUR;
use broker_domain::{FlavourName, SandboxName, Status, TrackId, TrackName};
use broker_store::ReadBudget;
use broker_store::pool_list::{self, PoolFilter, PoolPlace, WantedNames};
use http::StatusCode;
use serde_json::json;

use super::Operator;
use super::cursor::Cursors;
use crate::request::parameters::{CURSOR, FLAVOUR, LAB, SANDBOX_LIMIT, SANDBOXES, STATUS, TRACK};
use crate::request::query::Query;
use crate::response::Response;
use crate::response::bodies::{PoolPage, PooledSandbox};
use crate::response::codes::Code;
use crate::response::problem::Problem;

/// The most reads of the table and its index for one call: enough for a look at all states, each in fifty shards.
const READS: usize = 500;
/// No read begins later in a call that looked at much.
const READS_FOR: Duration = Duration::from_millis(100);

impl Operator {
    pub(super) async fn sandboxes(&self, query: &Query) -> Result<Response, Problem> {
        let store = &self.rpc.store;
        query.only(&[SANDBOXES])?;
        let status = query.checked(&STATUS, |text| Status::parse(text).ok_or(()))?;
        let flavour = query.get(FLAVOUR.name);
        let policy = match flavour {
            Some(_) => self.policy.now()?,
            // The pool is shown also while the policy is not known.
            None => self.policy.now().unwrap_or_default(),
        };
        let known =
            flavour.and_then(|name| policy.flavours().iter().find(|(known, _)| known.as_str() == name));
        if flavour.is_some_and(|name| name != ANY_FLAVOUR) && known.is_none() {
            return Err(Problem::new(Code::UnknownFlavour, "The policy names no such flavour."));
        }
        let takes = |name: &SandboxName| {
            let own = policy.flavour_of(name).map_or(ANY_FLAVOUR, FlavourName::as_str);
            flavour.is_none_or(|flavour| flavour == own)
        };
        let prefix = known.map(|(_, flavour)| &flavour.prefix);
        let track = query.checked(&TRACK, |text| TrackId::new(text))?;
        let track_name = query.checked(&LAB, |text| TrackName::new(text))?;
        let limit = query.number(&SANDBOX_LIMIT)?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let cursors = Cursors::of("sandboxes", store.table(), query);
        let place = |text: &str| PoolPlace::parse(&cursors.parse_text(text)?);
        let after = query.checked(&CURSOR, |text| place(text).ok_or(()))?;
        let filter = PoolFilter {
            status,
            track: track.as_ref(),
            track_name: track_name.as_ref(),
            names: flavour.map(|_| WantedNames { prefix, takes: &takes }),
        };
        let now = || self.rpc.clock.instant();
        let mut budget = ReadBudget::new(READS, READS_FOR, &now);
        let found = pool_list::page(store, &filter, after, limit, &mut budget).await?;
        let shown = |record| PooledSandbox::new(record, policy.flavour_of(&record.sandbox.name));
        let page = PoolPage {
            sandboxes: found.records.iter().map(shown).collect(),
            next_cursor: found.next.as_ref().map(|next| cursors.encode_text(&next.to_text())),
        };
        Ok(Response::json(StatusCode::OK, json!(page), "listed"))
    }
}
