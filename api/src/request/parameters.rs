//! Parameters of queries: each is told once, for the handler that reads it and for the OpenAPI document.

use broker_domain::{
    DeadLetterState, LONGEST_STALE_GRACE_HOURS, QuarantineCause, Reason, STALE_GRACE_HOURS, Source, Status,
};
use serde_json::{Value, json};

use crate::limits::{
    LETTERS_PER_ACTION, LETTERS_PER_PAGE, LONGEST_AGE_S, LONGEST_AUDIT_DAYS, MAX_LETTERS_PER_ACTION,
    MAX_LETTERS_PER_PAGE, MAX_SANDBOXES_PER_LEAVING, MAX_SANDBOXES_PER_PAGE, SANDBOXES_PER_PAGE,
};

/// Ids and keys.
pub(crate) const ID: &str = "^[A-Za-z0-9._:@-]{1,128}$";
/// The id of a dead letter.
pub(crate) const LETTER: &str = "^[0-9]{13}-[0-9a-f]{32}$";
/// One or more of them. No list of ids has a number: the longest path bounds all alike.
const LETTERS: &str = "^[0-9]{13}-[0-9a-f]{32}(,[0-9]{13}-[0-9a-f]{32})*$";
/// Bytes in hexadecimal.
const HEX: &str = "^([0-9a-f]{2})+$";

/// A parameter of a query.
#[derive(Clone, Copy)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) what: &'static str,
    pub(crate) required: bool,
    form: Form,
}

#[derive(Clone, Copy)]
enum Form {
    Flag,
    Number { from: u32, to: u32, default: Option<u32> },
    Word(fn() -> Vec<&'static str>),
    Text(&'static str),
}

/// `true` or `false`; absent, it is false.
#[derive(Clone, Copy)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
}

/// A whole number; `D` is `u32` if it has a default.
#[derive(Clone, Copy)]
pub(crate) struct Number<D> {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) default: D,
}

impl Parameter {
    const fn word(name: &'static str, what: &'static str, words: fn() -> Vec<&'static str>) -> Self {
        Self { name, what, required: false, form: Form::Word(words) }
    }

    const fn text(name: &'static str, what: &'static str, pattern: &'static str) -> Self {
        Self { name, what, required: false, form: Form::Text(pattern) }
    }

    const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// Its JSON Schema.
    pub(crate) fn schema(&self) -> Value {
        match self.form {
            Form::Flag => json!({ "type": "boolean", "default": false }),
            Form::Number { from, to, default: Some(default) } => {
                json!({ "type": "integer", "minimum": from, "maximum": to, "default": default })
            }
            Form::Number { from, to, default: None } => {
                json!({ "type": "integer", "minimum": from, "maximum": to })
            }
            Form::Word(words) => json!({ "type": "string", "enum": words() }),
            Form::Text(pattern) => json!({ "type": "string", "pattern": pattern }),
        }
    }
}

impl Flag {
    pub(crate) const fn parameter(self) -> Parameter {
        Parameter { name: self.name, what: self.what, required: false, form: Form::Flag }
    }
}

impl Number<u32> {
    pub(crate) const fn parameter(self) -> Parameter {
        let Self { name, what, from, to, default } = self;
        Parameter { name, what, required: false, form: Form::Number { from, to, default: Some(default) } }
    }
}

impl Number<()> {
    const fn parameter(self) -> Parameter {
        let Self { name, what, from, to, default: () } = self;
        Parameter { name, what, required: false, form: Form::Number { from, to, default: None } }
    }
}

pub(crate) const STATUS: Parameter =
    Parameter::word("status", "Only sandboxes in this state.", || Status::ALL.map(Status::as_str).to_vec());
/// The name of a flavour.
pub(crate) const FLAVOUR_NAME: &str = "^[a-z0-9_-]{1,64}$";
pub(crate) const FLAVOUR: Parameter =
    Parameter::text("flavour", "Only sandboxes of this flavour; `any`: of none.", FLAVOUR_NAME);
pub(crate) const TRACK: Parameter =
    Parameter::text("track", "Only sandboxes that this owner holds or held.", ID);
pub(crate) const LAB: Parameter = Parameter::text("track_name", "Only sandboxes for this lab.", ID);
pub(crate) const SANDBOX_LIMIT: Number<u32> = Number {
    name: "limit",
    what: "Sandboxes of a page.",
    from: 1,
    to: MAX_SANDBOXES_PER_PAGE,
    default: SANDBOXES_PER_PAGE,
};
pub(crate) const CURSOR: Parameter =
    Parameter::text("cursor", "The `next_cursor` of the page before; opaque.", HEX);
/// The parameters of the list of the pool.
pub(crate) const SANDBOXES: &[Parameter] = &[STATUS, FLAVOUR, TRACK, LAB, SANDBOX_LIMIT.parameter(), CURSOR];

pub(crate) const KEY_OF_TRACK: Parameter =
    Parameter::text("key", "The idempotency key of the lease; absent, it is the owner.", ID);
pub(crate) const DAYS_AGO: Number<u32> = Number {
    name: "days_ago",
    what: "The day, in UTC, counted back from today.",
    from: 0,
    to: LONGEST_AUDIT_DAYS,
    default: 0,
};
pub(crate) const AUDIT_LIMIT: Number<u32> = Number {
    name: "limit",
    what: "Acts of a page.",
    from: 1,
    to: MAX_SANDBOXES_PER_PAGE,
    default: SANDBOXES_PER_PAGE,
};
/// The parameters of the audit.
pub(crate) const AUDIT: &[Parameter] = &[DAYS_AGO.parameter(), AUDIT_LIMIT.parameter(), CURSOR];

pub(crate) const LIVE: Flag = Flag { name: "live", what: "Count now, instead of returning the last census." };
pub(crate) const POLICY_DRY_RUN: Flag = Flag { name: "dry_run", what: "Only report what would change." };
pub(crate) const ACCEPT_STALE: Flag =
    Flag { name: "accept_stale", what: "Make missing sandboxes stale, however many there are." };
pub(crate) const GRACE_PERIOD: Number<u32> = Number {
    name: "grace_period_hours",
    what: "How long a sandbox must have been stale.",
    from: 0,
    to: LONGEST_STALE_GRACE_HOURS,
    default: STALE_GRACE_HOURS,
};
pub(crate) const REMOVABLE: Parameter =
    Parameter::word("status", "The state of the records to remove.", || {
        [Status::Stale, Status::DeletionFailed].map(Status::as_str).to_vec()
    })
    .required();

pub(crate) const QUEUE: Parameter =
    Parameter::word("queue", "Only messages that died in this queue.", || {
        Source::ALL.map(Source::as_str).to_vec()
    });
pub(crate) const KIND: Parameter =
    Parameter::text("kind", "Only messages of this kind, e.g. allocate.", "^[!-~]{1,64}$");
pub(crate) const REASON: Parameter =
    Parameter::word("reason", "Only messages that died of this reason.", || {
        Reason::ALL.map(Reason::as_str).to_vec()
    });
pub(crate) const LETTER_TRACK: Parameter = Parameter::text("track", "Only messages of this owner.", ID);
pub(crate) const STATE: Parameter = Parameter::word("state", "Only letters in this state.", || {
    DeadLetterState::ALL.map(DeadLetterState::as_str).to_vec()
});
pub(crate) const OLDER_THAN: Number<()> = Number {
    name: "older_than_s",
    what: "Only messages that were first sent longer ago, in seconds.",
    from: 0,
    to: LONGEST_AGE_S,
    default: (),
};
pub(crate) const NEWER_THAN: Number<()> = Number {
    name: "newer_than_s",
    what: "Only messages that were first sent since, in seconds.",
    from: 0,
    to: LONGEST_AGE_S,
    default: (),
};
/// The filters of dead letters.
pub(crate) const LETTER_FILTERS: &[Parameter] =
    &[QUEUE, KIND, REASON, LETTER_TRACK, STATE, OLDER_THAN.parameter(), NEWER_THAN.parameter()];

pub(crate) const LETTER_LIMIT: Number<u32> = Number {
    name: "limit",
    what: "Letters of a page.",
    from: 1,
    to: MAX_LETTERS_PER_PAGE,
    default: LETTERS_PER_PAGE,
};
pub(crate) const LETTER_CURSOR: Parameter =
    Parameter::text("cursor", "The `next_cursor` of the page before.", LETTER);
pub(crate) const NEWEST_FIRST: Flag =
    Flag { name: "newest_first", what: "The newest first, not the oldest." };
/// The page of a list of dead letters.
pub(crate) const LETTER_PAGE: &[Parameter] =
    &[LETTER_LIMIT.parameter(), LETTER_CURSOR, NEWEST_FIRST.parameter()];

pub(crate) const QUARANTINE_IDS: Parameter = Parameter::text(
    "id",
    "One or more sandboxes, with commas: as many as the 2 KiB of path and query hold.",
    "^[A-Za-z0-9._:@-]{1,128}(,[A-Za-z0-9._:@-]{1,128})*$",
);
pub(crate) const QUARANTINE_CAUSE: Parameter =
    Parameter::word("cause", "Every sandbox that this put into quarantine.", || {
        QuarantineCause::ALL.map(QuarantineCause::as_str).to_vec()
    });
pub(crate) const QUARANTINE_ALL: Flag = Flag { name: "all", what: "Every sandbox in quarantine." };
pub(crate) const QUARANTINE_WHY: Parameter =
    Parameter::text("why", "The reason, for those who read the list.", "^[!-~]([ -~]{0,298}[!-~])?$")
        .required();
pub(crate) const ACTION_DRY_RUN: Flag = Flag { name: "dry_run", what: "Only report what would be done." };
pub(crate) const QUARANTINE_LIMIT: Number<u32> = Number {
    name: "limit",
    what: "The sandboxes that it is done with by `cause` or `all`: those that are there the longest.",
    from: 1,
    to: MAX_SANDBOXES_PER_LEAVING,
    default: MAX_SANDBOXES_PER_LEAVING,
};
/// What selects the sandboxes that leave the quarantine.
pub(crate) const LEAVING: &[Parameter] = &[
    QUARANTINE_IDS,
    QUARANTINE_CAUSE,
    QUARANTINE_ALL.parameter(),
    QUARANTINE_LIMIT.parameter(),
    ACTION_DRY_RUN.parameter(),
];

pub(crate) const TENANT: Parameter = Parameter::text("tenant", "Only this tenant.", ID);
pub(crate) const TENANTS_LIMIT: Number<u32> = Number {
    name: "limit",
    what: "Tenants of a page.",
    from: 1,
    to: MAX_SANDBOXES_PER_PAGE,
    default: SANDBOXES_PER_PAGE,
};
/// The parameters of the list of tenants.
pub(crate) const TENANTS: &[Parameter] = &[TENANT, TENANTS_LIMIT.parameter(), CURSOR];

pub(crate) const WAITING_TENANT: Parameter =
    Parameter::text("tenant", "Only requests of this tenant.", "^[A-Za-z0-9._:@-]{1,128}$");
pub(crate) const WAITING_PREFIX: Parameter =
    Parameter::text("name_prefix", "Only requests for names that begin with exactly this.", "^[ -~]{1,128}$");
pub(crate) const WAITING_TRACK: Parameter = Parameter::text("track", "Only requests of this owner.", ID);
pub(crate) const WAITING_FLAVOUR: Parameter =
    Parameter::text("flavour", "Only requests for this flavour of the policy.", FLAVOUR_NAME);
/// The filters of requests that wait.
pub(crate) const WAITING_FILTERS: &[Parameter] =
    &[WAITING_TENANT, WAITING_FLAVOUR, WAITING_PREFIX, WAITING_TRACK];
pub(crate) const WAITING_LIMIT: Number<u32> = Number {
    name: "limit",
    what: "Requests of a page.",
    from: 1,
    to: MAX_SANDBOXES_PER_PAGE,
    default: SANDBOXES_PER_PAGE,
};
/// The page of a list of requests that wait.
pub(crate) const WAITING_PAGE: &[Parameter] = &[WAITING_LIMIT.parameter(), CURSOR];
pub(crate) const WAITING_IDS: Parameter = Parameter::text(
    "id",
    "One or more requests, with commas: as many as the 2 KiB of path and query hold.",
    "^[0-9a-f-]{36}(,[0-9a-f-]{36})*$",
);
pub(crate) const WAITING_ALL: Flag = Flag { name: "all", what: "Every request that waits." };
/// What selects the requests that are cancelled beside filters, and where the call goes on.
pub(crate) const WAITING_ACTION: &[Parameter] =
    &[WAITING_IDS, WAITING_ALL.parameter(), ACTION_DRY_RUN.parameter(), CURSOR];

pub(crate) const IDS: Parameter = Parameter::text(
    "id",
    "One or more letters, with commas: as many as the 2 KiB of path and query hold.",
    LETTERS,
);
pub(crate) const ALL: Flag = Flag { name: "all", what: "Every letter." };
/// What selects the letters of a replay or discard beside filters.
pub(crate) const LETTER_SELECTION: &[Parameter] = &[IDS, ALL.parameter()];

pub(crate) const ACTION_LIMIT: Number<u32> = Number {
    name: "limit",
    what: "Letters of this call.",
    from: 1,
    to: MAX_LETTERS_PER_ACTION,
    default: LETTERS_PER_ACTION,
};
pub(crate) const RATE: Number<()> =
    Number { name: "rate", what: "Letters per second at most.", from: 1, to: 100_000, default: () };
pub(crate) const DRY_RUN: Flag = Flag {
    name: "dry_run",
    what: "Only report what would be done; without a `limit`, with all that match, as far as the wait goes.",
};
pub(crate) const ACTION_CURSOR: Parameter =
    Parameter::text("cursor", "The `next_cursor` of the call before, with the same filters.", LETTER);
/// The options of a replay or discard.
pub(crate) const ACTION_OPTIONS: &[Parameter] =
    &[ACTION_LIMIT.parameter(), ACTION_CURSOR, RATE.parameter(), DRY_RUN.parameter()];

pub(crate) const RENEW_DEADLINE: Flag = Flag {
    name: "renew_deadline",
    what: "Renew deadlines; otherwise an allocate past its deadline ends as `expired` and claims nothing.",
};
pub(crate) const WHY: Parameter =
    Parameter::text("why", "The reason of the discard, for the audit.", "^[!-~]([ -~]{0,498}[!-~])?$")
        .required();
