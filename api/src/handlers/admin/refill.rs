//! `/v1/admin/refill`: what each flavour is short of and why; pause and resume. The same code as `broker refill`.

use broker_domain::policy::Flavour;
use broker_domain::{FlavourName, RequestId};
use broker_store::{Act, AuditLine, NotDone, RefillStatus, pause_refill, resume_refill};
use http::StatusCode;
use serde_json::json;

use super::Operator;
use crate::response::Response;
use crate::response::bodies::{RefillBody, RefillList};
use crate::response::codes::Code;
use crate::response::problem::Problem;

impl Operator {
    pub(super) async fn refill(&self) -> Result<Response, Problem> {
        let policy = self.policy.now()?;
        let found = RefillStatus::all(&self.rpc.store, &policy, self.rpc.clock.now()).await?;
        let list = RefillList { flavours: found.into_iter().map(RefillBody::from).collect() };
        Ok(Response::json(StatusCode::OK, json!(list), "listed"))
    }

    /// Pauses or resumes a flavour.
    pub(super) async fn change_refill(
        &self,
        id: RequestId,
        who: &str,
        flavour: &str,
        act: Act,
    ) -> Result<Response, Problem> {
        let not_found = || Problem::new(Code::NotFound, "The policy refills no such flavour.");
        let policy = self.policy.now()?;
        let name = FlavourName::new(flavour).map_err(|_| not_found())?;
        let Some(flavour @ Flavour { refill: Some(refill), .. }) = policy.flavours().get(&name) else {
            return Err(not_found());
        };
        let (store, now) = (&self.rpc.store, self.rpc.clock.now());
        let line = AuditLine::new(now, *id.as_uuid(), who, act, name.as_str());
        let changed = Box::pin(async {
            if act == Act::PauseRefill {
                self.paused(&line, pause_refill(store, &name, who, now).await?).await;
            } else if !resume_refill(store, &name).await?.is_applied() {
                self.not_done(&line, &NotDone::Unchanged("nothing held it up".to_owned())).await;
            }
            Ok(())
        });
        self.act(&line, changed).await?;
        // It is done, and doing it again changes nothing: who is not told how things stand asks again.
        let status = RefillStatus::of(store, &name, (flavour, refill), now).await?;
        Ok(Response::json(StatusCode::OK, json!(RefillBody::from(status)), "scheduled"))
    }
}
