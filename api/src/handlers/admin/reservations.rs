//! `/v1/admin/reservations`: sandboxes that are put aside for a tenant. The same code as `broker reservation`.

use std::collections::BTreeMap;

use broker_domain::{RequestId, Reservation, ReservationEnd, ReservationId};
use broker_store::reservations::{self, ReservationWrite};
use broker_store::{Act, AuditLine, NotDone};
use http::StatusCode;
use serde_json::json;

use super::Operator;
use crate::request::reservation::{ReservationBody, ReservationChangeBody};
use crate::response::Response;
use crate::response::bodies::{ReservationList, ReservationView};
use crate::response::codes::Code;
use crate::response::problem::Problem;

impl Operator {
    pub(super) async fn reservations(&self) -> Result<Response, Problem> {
        let mut all = self.rpc.store.reservations.all().await?;
        all.sort_by_key(|one| (one.terms.begins_at().unwrap_or(one.made_at), one.id));
        let list = ReservationList { reservations: self.views(&all).await? };
        Ok(Response::json(StatusCode::OK, json!(list), "listed"))
    }

    pub(super) async fn reservation(&self, in_path: &str) -> Result<Response, Problem> {
        let found = self.rpc.store.reservations.get(reservation_id(in_path)?).await?;
        let views = self.views(std::slice::from_ref(&found.ok_or_else(not_found)?)).await?;
        Ok(shown(views.first(), StatusCode::OK))
    }

    pub(super) async fn reserve(&self, id: RequestId, who: &str, body: &[u8]) -> Result<Response, Problem> {
        let body = ReservationBody::parse(body)?;
        let (policy, now) = (self.policy.now()?, self.rpc.clock.now());
        let terms = body.terms(&policy)?;
        let reservation = body.id().unwrap_or_else(|| ReservationId::from_uuid(*id.as_uuid()));
        let count = Some(u64::from(terms.count));
        let line = AuditLine { count, ..self.reservation_line(id, who, Act::Reserve, reservation) };
        let store = &self.rpc.store;
        let made = Box::pin(async {
            let written = reservations::create(store, &policy, (reservation, &terms), who, now).await?;
            let made = stands(written)?;
            let location = format!("/v1/admin/reservations/{}", made.id);
            Ok(self.written(&made, StatusCode::CREATED).await.located(&location))
        });
        self.act(&line, made).await
    }

    pub(super) async fn change_reservation(
        &self,
        id: RequestId,
        who: &str,
        in_path: &str,
        body: &[u8],
    ) -> Result<Response, Problem> {
        let reservation = reservation_id(in_path)?;
        let body = ReservationChangeBody::parse(body)?;
        let (policy, now) = (self.policy.now()?, self.rpc.clock.now());
        let changed = Box::pin(async {
            let change =
                reservations::change(&self.rpc.store, &policy, reservation, |now| body.applied(now), now);
            Ok(self.written(&stands(change.await?)?, StatusCode::OK).await)
        });
        self.act(&self.reservation_line(id, who, Act::ChangeReservation, reservation), changed).await
    }

    pub(super) async fn delete_reservation(
        &self,
        id: RequestId,
        who: &str,
        in_path: &str,
    ) -> Result<Response, Problem> {
        let reservation = reservation_id(in_path)?;
        let line = self.reservation_line(id, who, Act::DeleteReservation, reservation);
        let (store, now) = (&self.rpc.store, self.rpc.clock.now());
        let closed = Box::pin(async {
            let closed = reservations::close(store, reservation, ReservationEnd::Deleted, now).await?;
            let closed = closed.ok_or_else(not_found)?;
            if closed.closed.is_none_or(|closed| closed.at != now) {
                self.not_done(&line, &NotDone::Unchanged("it had ended before".to_owned())).await;
            }
            Ok(self.written(&closed, StatusCode::OK).await)
        });
        self.act(&line, closed).await
    }

    /// A reservation that was written, as it is shown. It stands so: where it cannot be read what is counted and at risk, it is
    /// shown without.
    async fn written(&self, reservation: &Reservation, status: StatusCode) -> Response {
        let views = self.views(std::slice::from_ref(reservation)).await.unwrap_or_else(|problem| {
            let why = problem.cause_chain().unwrap_or_else(|| problem.message().to_owned());
            tracing::warn!(reservation_id = %reservation.id, "a reservation is shown without its counts: {why}");
            let (policy, now) = (self.policy.now().unwrap_or_default(), self.rpc.clock.now());
            let (counted, risks) = (BTreeMap::new(), BTreeMap::new());
            vec![ReservationView::new(reservation, &policy, &counted, &risks, now)]
        });
        shown(views.first(), status)
    }

    /// As they are shown, with what will be missing: that depends on all of them.
    async fn views(&self, shown: &[Reservation]) -> Result<Vec<ReservationView>, Problem> {
        let (store, now) = (&self.rpc.store, self.rpc.clock.now());
        let policy = self.policy.now().unwrap_or_default();
        let counted = store.census.get().await?.map(|census| census.by_reservation).unwrap_or_default();
        let all = store.reservations.all().await?;
        let risks = reservations::outlook(store, &policy, &all, now).await?;
        Ok(shown.iter().map(|one| ReservationView::new(one, &policy, &counted, &risks, now)).collect())
    }

    fn reservation_line(&self, id: RequestId, who: &str, act: Act, reservation: ReservationId) -> AuditLine {
        AuditLine::new(self.rpc.clock.now(), *id.as_uuid(), who, act, reservation.to_string())
    }
}

fn shown(view: Option<&ReservationView>, status: StatusCode) -> Response {
    Response::json(status, json!(view), "shown")
}

fn reservation_id(in_path: &str) -> Result<ReservationId, Problem> {
    ReservationId::parse(in_path).map_err(|_| not_found())
}

fn not_found() -> Problem {
    Problem::new(Code::ReservationNotFound, "There is no such reservation.")
}

/// The reservation that stands now, or why it does not.
fn stands(written: ReservationWrite) -> Result<Reservation, Problem> {
    let conflict = |text: String| Problem::new(Code::ReservationConflict, text);
    match written {
        ReservationWrite::Stands(reservation) => Ok(*reservation),
        ReservationWrite::NotFound => Err(not_found()),
        ReservationWrite::Invalid(invalid) => Err(Problem::invalid(format!("{invalid}."))),
        ReservationWrite::Exists(_) => Err(conflict("There is another reservation of this id.".to_owned())),
        ReservationWrite::Conflict(why) => Err(conflict(format!("Nothing was reserved: {why}."))),
        ReservationWrite::Ended(_) => {
            Err(Problem::new(Code::ReservationEnded, "It has ended, and cannot be changed any more."))
        }
    }
}
