//! `GET /v1/admin/sandboxes`: a page of the pool, unordered.
//!
//! A page may hold fewer than `limit`, even none, and still have a `next_cursor`: one call reads a bounded part of the table.
//! The last page has none.

use broker_domain::policy::ANY_FLAVOUR;
use broker_domain::{FlavourName, Status, TrackId, TrackName};
use broker_store::Record;
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

/// The most pages of the table (1 MB each) that one call reads.
const READS: usize = 16;

impl Operator {
    pub(super) async fn sandboxes(&self, query: &Query) -> Result<Response, Problem> {
        let (store, policy) = (&self.rpc.store, self.policy.now().unwrap_or_default());
        query.only(&[SANDBOXES])?;
        let status = query.checked(&STATUS, |text| Status::parse(text).ok_or(()))?;
        let flavour = query.get(FLAVOUR.name);
        let is_known = |name: &&str| {
            *name == ANY_FLAVOUR || policy.flavours().keys().any(|known| known.as_str() == *name)
        };
        if flavour.is_some() && flavour.filter(is_known).is_none() {
            return Err(Problem::new(Code::UnknownFlavour, "The policy names no such flavour."));
        }
        let flavour_of = |record: &Record| {
            policy.flavour_of(&record.sandbox.name).map_or(ANY_FLAVOUR, FlavourName::as_str)
        };
        let track = query.checked(&TRACK, |text| TrackId::new(text))?;
        let track_name = query.checked(&LAB, |text| TrackName::new(text))?;
        let limit = query.number(&SANDBOX_LIMIT)?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let cursors = Cursors::of(store.table(), query);
        let mut after = query.checked(&CURSOR, |text| cursors.parse(text).ok_or(()))?;
        let wanted = |record: &Record| {
            let allocation = record.sandbox.allocation.as_ref();
            status.is_none_or(|status| record.sandbox.status == status)
                && flavour.is_none_or(|flavour| flavour_of(record) == flavour)
                && track.as_ref().is_none_or(|track| allocation.is_some_and(|a| a.lease_key.track == *track))
                && track_name
                    .as_ref()
                    .is_none_or(|name| allocation.is_some_and(|a| a.track_name.as_ref() == Some(name)))
        };
        let mut found = Vec::new();
        for _ in 0..READS {
            let read = store.sandboxes.browse(after.take(), limit - found.len(), wanted).await?;
            found.extend(read.items);
            after = read.next;
            if after.is_none() || found.len() >= limit {
                break;
            }
        }
        let shown = |record| PooledSandbox::new(record, policy.flavour_of(&record.sandbox.name));
        let page = PoolPage {
            sandboxes: found.iter().map(shown).collect(),
            next_cursor: after.as_ref().map(|after| cursors.encode(after)),
        };
        Ok(Response::json(StatusCode::OK, json!(page), "listed"))
    }
}
