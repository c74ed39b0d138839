//! `broker doctor`: checks everything that a broker needs, a line each: fine, a note, or what to do.
//!
//! Invariants: it changes nothing; every line is printed, also after one that is wrong; a check that needs an earlier, failed
//! one says so and counts as wrong. Processes are checked by their `/readyz`, the contents of the table by
//! `broker pool verify`.

mod queues;

use std::process::ExitCode;

use broker_domain::{MAX_SKEW_MS, Pause};
use broker_provider::{Provider, ProviderError};
use broker_queue::inspect;
use broker_runtime::aws::{self, AwsEnvironment, Patience, ToldEnvironment};
use broker_runtime::clock::Clock;
use broker_runtime::config::{ConfigError, Strings};
use broker_runtime::errors::chain;
use broker_store::schema::{self, IndexState};
use broker_store::{PoolStatus, SettingsError, StoreError};
use serde::Serialize;

use crate::context::{COMPARED, Context, Settings};
use crate::done::Done;
use crate::output;

/// One line of the report.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    ok: bool,
    /// Whether what was found is fine here, and worth knowing.
    note: bool,
    /// What was found.
    found: String,
    /// What to do about it; empty if it is fine.
    todo: String,
}

impl Finding {
    fn fine(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, ok: true, note: false, found: found.into(), todo: String::new() }
    }

    fn note(check: &'static str, found: impl Into<String>) -> Self {
        Self { note: true, ..Self::fine(check, found) }
    }

    fn wrong(check: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { check, ok: false, note: false, found: found.into(), todo: todo.into() }
    }

    fn of(check: &'static str, problem: Option<(String, String)>, fine: impl Into<String>) -> Self {
        match problem {
            Some((found, todo)) => Self::wrong(check, found, todo),
            None => Self::fine(check, fine),
        }
    }
}

/// The checks after those of the settings and the environment, which need what the environment says.
const OF_AWS: [&str; 6] = ["credentials", "table", "index", "queues", "redrive", "clock"];

const OF_PERMISSIONS: &str = "Check the role's permissions: see infra/terraform/modules/data/policies.tf.";

pub(crate) fn run(settings: &Settings, json: bool) -> anyhow::Result<Done> {
    let unknown = settings.unknown_names();
    let of_settings = Finding::of(
        "settings",
        (!unknown.is_empty()).then(|| {
            let names: Vec<_> = unknown.iter().map(|unknown| unknown.name.as_str()).collect();
            let nearest: Vec<_> = unknown.iter().map(|unknown| unknown.nearest).collect();
            let what =
                if names.len() == 1 { "is not a setting: it has" } else { "are not settings: they have" };
            (
                format!("{} {what} no effect", names.join(", ")),
                format!("Did you mean {}?", nearest.join(", ")),
            )
        }),
        "every BROKER_* name is known",
    );
    let (environment, told) = match settings.over(&[], environment) {
        Ok(read) => read,
        Err(bad) => {
            let wrong =
                Finding::wrong("environment", bad.to_string(), "No command of this shell runs before that.");
            let mut findings = vec![of_settings, wrong];
            let unchecked = |check| Finding::wrong(check, "not checked", "Repair the environment first.");
            findings.extend(OF_AWS.into_iter().chain(["provider", "tokens"]).map(unchecked));
            tell(&findings, json)?;
            return Ok(Done::Misused);
        }
    };
    settings.once_unbound(Patience::Short, async |context| {
        let mut findings = vec![of_settings, told];
        findings.extend(examine(&context, environment).await);
        tell(&findings, json)?;
        let all_fine = findings.iter().all(|finding| finding.ok);
        Ok(if all_fine { Done::Ok } else { Done::Exit(ExitCode::FAILURE) })
    })
}

/// The AWS environment, and the line on it.
fn environment(strings: &dyn Strings) -> Result<(AwsEnvironment, Finding), ConfigError> {
    let environment = AwsEnvironment::read(strings)?;
    let ToldEnvironment { profile, region_from, endpoints, foreign } = environment.told(strings);
    let mut parts = vec![profile.map_or("no AWS_PROFILE".to_owned(), |name| format!("AWS_PROFILE={name}"))];
    parts.extend(region_from.map(|name| format!("region from {name}")));
    parts.extend(endpoints.iter().map(|(name, url)| format!("{name}={url}")));
    if !foreign.hold.is_empty() {
        parts.push(format!("in force: {}", foreign.hold.join(", ")));
    }
    parts.extend(foreign.ignored.iter().map(|(name, why)| format!("{name} is ignored: {why}")));
    Ok((environment, Finding::fine("environment", parts.join("; "))))
}

fn tell(findings: &[Finding], json: bool) -> std::io::Result<()> {
    if json {
        return output::json(&findings);
    }
    let cells = findings.iter().map(|finding| {
        let word = match (finding.ok, finding.note) {
            (true, false) => "ok",
            (true, true) => "note",
            (false, _) => "WRONG",
        };
        let text =
            if finding.ok { finding.found.clone() } else { format!("{}. {}", finding.found, finding.todo) };
        [finding.check.to_owned(), word.to_owned(), text]
    });
    output::table(["CHECK", "", "FOUND"], cells)
}

async fn examine(context: &Context, environment: AwsEnvironment) -> Vec<Finding> {
    let credentials = credentials(environment, &context.clock).await;
    let has_credentials = credentials.ok;
    let mut findings = vec![credentials];
    if has_credentials {
        findings.extend(table(context).await);
        let table_is_fine = findings.iter().all(|finding| finding.ok || finding.check != "table");
        findings.extend(queues::queues(context, table_is_fine).await);
        findings.push(clock(context).await);
    } else {
        let unknown = |check| Finding::wrong(check, "not checked", "Repair the credentials first.");
        findings.extend(OF_AWS.into_iter().skip(1).map(unknown));
    }
    findings.push(provider(context).await);
    findings.push(tokens(context));
    findings
}

async fn credentials(environment: AwsEnvironment, clock: &Clock) -> Finding {
    let aws::AwsIdentity { region, credentials } = aws::identity(environment, clock).await;
    let todo =
        "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role is attached.";
    match (region, credentials) {
        (Some(region), Ok(source)) => {
            Finding::fine("credentials", format!("found: {source}; region {region}"))
        }
        (_, Err(why)) => Finding::wrong("credentials", format!("not found: {why}"), todo),
        (None, Ok(_)) => Finding::wrong("credentials", "found, but no region", "Set AWS_REGION."),
    }
}

async fn table(context: &Context) -> [Finding; 2] {
    let name = &context.config.table;
    let seen = match schema::inspect(&context.aws.dynamodb, name).await {
        Ok(seen) => seen,
        Err(error) => {
            let todo = match &error {
                StoreError::NoTable { .. } => {
                    "Set BROKER_TABLE to the name of the existing table; one that is being restored is not there yet. For a new broker, run `broker init`."
                }
                StoreError::Denied { .. } | StoreError::Refused { .. } => {
                    "AWS does not accept the credentials, or the role may not describe the table: see infra/terraform/modules/data/policies.tf."
                }
                StoreError::Unavailable { .. } | StoreError::Conflict | StoreError::Malformed { .. } => {
                    "Check AWS_ENDPOINT_URL_DYNAMODB (if it is set), the region and the network."
                }
            };
            let found = chain(&error);
            return [
                Finding::wrong("table", found, todo),
                Finding::wrong("index", "not checked", "Repair the table first."),
            ];
        }
    };
    let foreign = "It was made for something else: set BROKER_TABLE to another name.".to_owned();
    let problem = if !seen.keys {
        Some((format!("{name} has other keys than PK and SK"), foreign.clone()))
    } else if !seen.replicas.is_empty() {
        let found = format!("{name} has replicas in {}", seen.replicas.join(", "));
        Some((
            found,
            "Remove them: conditions hold within one region, so two regions can hand out a sandbox twice."
                .to_owned(),
        ))
    } else if let Some(attribute) = &seen.foreign_ttl {
        let found = format!("{name} removes what is past its {attribute}");
        Some((
            found,
            "Turn that off (aws dynamodb update-time-to-live), then run `broker init`: ours is ttl."
                .to_owned(),
        ))
    } else if !seen.active {
        Some((format!("{name} is not active"), "Wait until it is, and check again.".to_owned()))
    } else if !seen.expires {
        let found = format!("{name} does not delete expired items");
        Some((found, "Run `broker init`: it turns expiry on.".to_owned()))
    } else {
        match differing(context, "BROKER_STATE_SHARDS").await {
            None => closed(context).await,
            differs => differs,
        }
    };
    let index = match seen.index {
        IndexState::Usable => None,
        IndexState::NotActive => {
            Some(("it is being built".to_owned(), "Wait until it is active, and check again.".to_owned()))
        }
        IndexState::Foreign => {
            Some((format!("{} has other keys or attributes than ours", schema::STATE_INDEX), foreign))
        }
        IndexState::Missing => Some((
            format!("{name} has no {}", schema::STATE_INDEX),
            "Run `broker init --adopt-table`; until then nothing can be allocated.".to_owned(),
        )),
    };
    [
        Finding::of("table", problem, format!("{name} is active")),
        Finding::of("index", index, format!("{} is active", schema::STATE_INDEX)),
    ]
}

/// What is wrong with this setting, if the table's data was written with another value.
async fn differing(context: &Context, setting: &str) -> Option<(String, String)> {
    match context.store.pool.check_settings(&context.config.prefix).await {
        Err(SettingsError::Setting(error)) if error.name == setting => {
            Some((error.to_string(), "No process starts before that.".to_owned()))
        }
        // What else is wrong with the table is told beside this.
        Ok(()) | Err(SettingsError::Setting(_) | SettingsError::Store(_)) => None,
    }
}

/// Why no worker may take messages of this table, if none may.
async fn closed(context: &Context) -> Option<(String, String)> {
    match context.store.pool.look().await {
        Ok(Some((PoolStatus::Paused { since }, pause))) => {
            let todo = "No worker receives. Ask why (`broker audit`), then `broker pool resume`.";
            let pause = pause.unwrap_or(Pause { since, by: None });
            Some((pause.to_string(), todo.to_owned()))
        }
        Ok(Some((PoolStatus::RestoredCopy { of }, _))) => Some((
            format!("a restored copy of {}, or being reconciled: no worker receives", of.table),
            "Run `broker pool reconcile`: what was handed out since is not known (infra/docs/RUNBOOK.md)."
                .to_owned(),
        )),
        // Of shards the settings are told.
        Ok(Some((PoolStatus::Open | PoolStatus::OtherShards { .. }, _)) | None) => None,
        Err(error) => Some((
            format!("whether the pool is paused cannot be read: {}", chain(&error)),
            OF_PERMISSIONS.to_owned(),
        )),
    }
}

/// Compares this machine's clock with the dates of some more responses.
async fn clock(context: &Context) -> Finding {
    for _ in 0..COMPARED {
        // Only the date of the response matters here.
        if inspect::queues(&context.aws, &context.names, context.config.visibility).await.is_err() {
            break;
        }
    }
    let off_ms = context.clock.correction_ms();
    if !context.clock.is_trusted() {
        let found = "it cannot be compared with the dates of AWS, or they disagree with each other";
        return Finding::wrong("clock", found, "Repair what is wrong above, and check again.");
    }
    let off = (off_ms.abs() > MAX_SKEW_MS).then(|| {
        let found = format!("{} s off the dates of AWS", off_ms / 1_000);
        (found, "Synchronise this machine's clock (NTP); processes correct it meanwhile.".to_owned())
    });
    Finding::of("clock", off, "within 2 s of the dates of AWS")
}

async fn provider(context: &Context) -> Finding {
    let Some(config) = &context.config.provider else {
        let found = "not configured: no sync and no deletion at a provider (BROKER_PROVIDER_URL)";
        return Finding::fine("provider", found);
    };
    let probed = match Provider::new(config, context.clock.clone()) {
        Ok(provider) => provider.probe().await,
        Err(error) => Err(error),
    };
    let todo = |error: &ProviderError| match error {
        ProviderError::Unauthorized { .. } => "Set BROKER_PROVIDER_TOKEN to a token that it knows.",
        ProviderError::WrongUrl { .. } | ProviderError::Malformed { .. } | ProviderError::Refused { .. } => {
            "Is BROKER_PROVIDER_URL the base of its API? {base}/current_user/accounts is asked for."
        }
        ProviderError::Unavailable { .. }
        | ProviderError::RateLimited { .. }
        | ProviderError::BreakerOpen { .. } => {
            "Check BROKER_PROVIDER_URL, the network, and the provider's own status. Allocations go on meanwhile."
        }
    };
    let problem = probed.err().map(|error| (format!("{}: {error}", config.url), todo(&error).to_owned()));
    Finding::of("provider", problem, format!("{} answers", config.url))
}

fn tokens(context: &Context) -> Finding {
    let config = &context.config;
    let names = |tokens: &broker_runtime::config::Tokens| {
        let shown = tokens.iter().map(|token| {
            let mark = if token.is_read_only() { " (read-only)" } else { "" };
            format!("{}{mark}", token.name())
        });
        shown.collect::<Vec<_>>().join(", ")
    };
    let (track, admin) = (names(&config.track_tokens), names(&config.admin_tokens));
    let todo = "Set BROKER_TRACK_TOKENS=name=token (or BROKER_TRACK_TOKENS_FILE) where the API runs.";
    match (track.is_empty(), admin.is_empty()) {
        (true, _) if config.local => {
            Finding::fine("tokens", "none of a platform, and BROKER_LOCAL allows that")
        }
        // An operator's shell has none: its commands use AWS, not the API.
        (true, true) => Finding::note("tokens", "none: an API with this environment would not start"),
        (true, false) => Finding::wrong("tokens", "none of a platform: no allocation is possible", todo),
        (false, true) => Finding::fine("tokens", format!("platforms {track}; no operator, so no /v1/admin")),
        (false, false) => Finding::fine("tokens", format!("platforms {track}; operators {admin}")),
    }
}
