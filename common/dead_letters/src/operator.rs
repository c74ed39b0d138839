//! Operations on dead letters for operators: count and perform, with an audit line.

use tokio_util::sync::CancellationToken;

use super::action::{Action, ActionOptions, DeadLetters};
use super::run::ActionRun;
use super::{ReplayReport, Selection};
use broker_domain::{DeadLetterFilter, DeadLetterId, Timestamp};
use broker_store::{Act, Actor, AuditLine, StoreError};

impl DeadLetters {
    /// What a run would find: reads all selected letters.
    pub async fn count(&self, selection: Selection) -> Result<ReplayReport, StoreError> {
        let options = ActionOptions { dry_run: true, ..ActionOptions::default() };
        let action = Action::Replay { renew_deadline: false };
        ActionRun::new(self, action, options, self.actor("dry-run"))
            .run(selection, &CancellationToken::new(), |_| ())
            .await
    }

    /// Performs the action until the end or `stop`, and returns what was done. `report` is called for every letter. An error is
    /// of an action that was not begun: without its audit line there is none.
    pub async fn perform(
        &self,
        action: Action,
        selection: Selection,
        options: ActionOptions,
        by: &str,
        stop: &CancellationToken,
        report: impl FnMut(&ReplayReport),
    ) -> Result<ReplayReport, StoreError> {
        let actor = self.actor(by);
        if !options.dry_run {
            self.store.audit.record(&line(&action, &selection, options, &actor)).await?;
        }
        let (id, began) = (actor.action, actor.at);
        let run = ActionRun::new(self, action, options, actor);
        let ended = run.run(selection, stop, report).await;
        if !options.dry_run {
            let said = match &ended {
                Ok(tally) => serde_json::to_string(tally).unwrap_or_default(),
                Err(error) => serde_json::json!({ "error": error.to_string() }).to_string(),
            };
            tracing::info!(action = %id, by, said, "dead letters: done");
            // The letters are sent or discarded by now: what the caller is told does not depend on the line.
            if let Err(error) = self.store.audit.record_end(id, began, &said).await {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, action = %id, "the audit does not tell what became of dead letters");
            }
        }
        ended
    }

    fn actor(&self, by: &str) -> Actor {
        Actor { action: self.entropy.uuid(), by: by.to_owned(), at: self.clock.now() }
    }
}

/// The audit line of an action.
fn line(action: &Action, selection: &Selection, options: ActionOptions, actor: &Actor) -> AuditLine {
    let (act, renewed, why) = match action {
        Action::Replay { renew_deadline } => (Act::Replay, *renew_deadline, None),
        Action::Discard { why } => (Act::Discard, false, Some(why.clone())),
    };
    let mut target = match selection {
        Selection::These(ids) => ids.iter().map(DeadLetterId::as_str).collect::<Vec<_>>().join(" "),
        Selection::Matching(filter) => words(filter),
        Selection::Behind(id, filter) => format!("{}, behind {id}", words(filter)),
    };
    if let Some(limit) = options.limit {
        target.push_str(&format!(", at most {limit}"));
    }
    if renewed {
        target.push_str(", deadlines renewed");
    }
    AuditLine { why, ..AuditLine::new(actor.at, actor.action, &actor.by, act, target) }
}

/// A filter as an operator would say it; `all` for one that leaves nothing out.
fn words(filter: &DeadLetterFilter) -> String {
    let DeadLetterFilter { source, kind, reason, track, since, before, state } = filter;
    let time = |at: &Timestamp| format!("second {}", at.as_secs());
    let said = [
        ("queue", source.map(|source| source.as_str().to_owned())),
        ("kind", kind.clone()),
        ("reason", reason.map(|reason| reason.as_str().to_owned())),
        ("track", track.as_ref().map(ToString::to_string)),
        ("since", since.as_ref().map(time)),
        ("before", before.as_ref().map(time)),
        ("state", state.map(|state| state.as_str().to_owned())),
    ];
    let said: Vec<_> =
        said.into_iter().filter_map(|(name, value)| value.map(|value| format!("{name} {value}"))).collect();
    if said.is_empty() { "all".to_owned() } else { said.join(", ") }
}
