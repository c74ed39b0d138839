//! Properties of routes: what each does, what it takes, and whom it is for.

use super::{Admin, Route};

/// What a route does to what the broker keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing: it shows.
    Reads,
    /// It changes something, or may.
    Changes,
}

impl Admin {
    /// Whether its request may have a body.
    pub(crate) const fn takes_body(self) -> bool {
        matches!(self, Self::PutPolicy | Self::Reserve | Self::ChangeReservation)
    }
}

/// The routes of a listener. Liveness, readiness and the documentation of its routes are told at every one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// All of them.
    Everybody,
    /// Of platforms.
    Platforms,
    /// Of operators and machines.
    Operators,
}

impl Audience {
    pub(crate) const fn include(self, route: Route) -> bool {
        let is_everywhere =
            matches!(route, Route::Health | Route::Ready | Route::OpenApi | Route::Docs | Route::DocsFile);
        match self {
            Self::Everybody => true,
            Self::Platforms => is_everywhere || route.is_public(),
            Self::Operators => is_everywhere || !route.is_public(),
        }
    }
}

impl Route {
    /// What it does; a read-only token is refused where it changes something.
    pub(crate) const fn effect(self) -> Effect {
        match self {
            Self::Allocate
            | Self::ReturnSandbox
            | Self::Renew
            | Self::ReportBroken
            | Self::Cancel
            | Self::Admin(
                Admin::Sync
                | Admin::Cleanup
                | Admin::Expire
                | Admin::PurgeStale
                | Admin::BulkDelete
                | Admin::Replay
                | Admin::Discard
                | Admin::PauseJob
                | Admin::ResumeJob
                | Admin::PutPolicy
                | Admin::PauseRefill
                | Admin::ResumeRefill
                | Admin::AddToQuarantine
                | Admin::ReleaseFromQuarantine
                | Admin::RetireFromQuarantine
                | Admin::CancelWaiting
                | Admin::Reserve
                | Admin::ChangeReservation
                | Admin::DeleteReservation,
            ) => Effect::Changes,
            Self::Sandbox
            | Self::Quota
            | Self::Request
            | Self::Admin(
                Admin::Sandboxes
                | Admin::Stats
                | Admin::Job
                | Admin::DeadLetters
                | Admin::DeadLetter
                | Admin::Overview
                | Admin::SandboxHistory
                | Admin::Track
                | Admin::Audit
                | Admin::Flavours
                | Admin::Policy
                | Admin::Refill
                | Admin::Quarantine
                | Admin::Tenants
                | Admin::Waiting
                | Admin::Reservations
                | Admin::Reservation,
            )
            | Self::Health
            | Self::Ready
            | Self::Metrics
            | Self::OpenApi
            | Self::Docs
            | Self::DocsFile
            | Self::Console
            | Self::ConsoleFile => Effect::Reads,
        }
    }

    /// Whether a query may follow its path. Which parameters those are is its handler's to say.
    pub(crate) const fn takes_query(self) -> bool {
        match self {
            Self::Admin(admin) => match admin {
                Admin::Sandboxes
                | Admin::Stats
                | Admin::Sync
                | Admin::PurgeStale
                | Admin::BulkDelete
                | Admin::DeadLetters
                | Admin::Replay
                | Admin::Discard
                | Admin::Track
                | Admin::Flavours
                | Admin::PutPolicy
                | Admin::AddToQuarantine
                | Admin::ReleaseFromQuarantine
                | Admin::RetireFromQuarantine
                | Admin::Tenants
                | Admin::Waiting
                | Admin::CancelWaiting
                | Admin::Audit => true,
                Admin::Cleanup
                | Admin::Expire
                | Admin::Job
                | Admin::DeadLetter
                | Admin::Overview
                | Admin::SandboxHistory
                | Admin::Policy
                | Admin::Quarantine
                | Admin::Refill
                | Admin::PauseRefill
                | Admin::ResumeRefill
                | Admin::PauseJob
                | Admin::ResumeJob
                | Admin::Reservations
                | Admin::Reserve
                | Admin::Reservation
                | Admin::ChangeReservation
                | Admin::DeleteReservation => false,
            },
            Self::Allocate
            | Self::ReturnSandbox
            | Self::Renew
            | Self::ReportBroken
            | Self::Sandbox
            | Self::Quota
            | Self::Request
            | Self::Cancel
            | Self::Health
            | Self::Ready
            | Self::Metrics
            | Self::OpenApi
            | Self::Docs
            | Self::DocsFile
            | Self::Console
            | Self::ConsoleFile => false,
        }
    }

    /// Whether it is for the platforms and their students; else it is for operators and machines.
    pub(crate) const fn is_public(self) -> bool {
        matches!(
            self,
            Self::Allocate
                | Self::ReturnSandbox
                | Self::Renew
                | Self::ReportBroken
                | Self::Sandbox
                | Self::Quota
                | Self::Request
                | Self::Cancel
        )
    }

    /// Whether it is for probes and scrapers, which are not rate-limited.
    pub(crate) const fn is_probe(self) -> bool {
        matches!(self, Self::Health | Self::Ready | Self::Metrics)
    }
}
