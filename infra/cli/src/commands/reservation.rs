//! `broker reservation`: sandboxes that are put aside for a tenant, from a time until a time, or for good.
//!
//! Times have a zone: `2026-12-07T09:00+01:00`, or `2026-12-07T09:00[Europe/Berlin]`. What does not fit is exit code 1, wrong terms
//! are exit code 2.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_api::response::bodies::ReservationView;
use broker_domain::policy::{Policy, ReservedCount};
use broker_domain::reservation::LEAD;
use broker_domain::{
    FlavourName, NamePrefix, Reservation, ReservationEnd, ReservationId, ReservationTerms, TenantName,
    Timestamp,
};
use broker_store::reservations::{self, ReservationWrite};
use broker_store::{Act, AuditLine, NotDone, StoreError};
use clap::{Args, Subcommand};

use crate::commands::lease::parse_time;
use crate::commands::policy;
use crate::context::Context;
use crate::done::Done;
use crate::output::{self, Output};

#[derive(Debug, Subcommand)]
pub(crate) enum ReservationCommand {
    /// Reserve sandboxes for a tenant
    Create(Create),
    /// List reservations; ended ones for a week
    List(Output),
    /// Show one
    Show(One),
    /// Change one, also while it runs; what is not named stays
    Change(ChangeArguments),
    /// End one: what is put aside goes back, what is claimed stays with its owners
    Delete(One),
}

/// Why a reservation that is not there is not deleted.
const NO_SUCH: &str = "there is no such reservation";

/// A moment, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moment(Option<Timestamp>);

fn moment(text: &str) -> Result<Moment, String> {
    if text == "none" {
        return Ok(Moment(None));
    }
    let wrong =
        || "is no time with a zone: write it as 2026-12-07T09:00+01:00 or 2026-12-07T09:00[Europe/Berlin]";
    Timestamp::parse_zoned(text).map(|at| Moment(Some(at))).ok_or_else(|| wrong().to_owned())
}

/// A span of time, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NoShow(Option<Duration>);

fn span(text: &str) -> Result<NoShow, String> {
    if text == "none" { Ok(NoShow(None)) } else { Ok(NoShow(Some(length(text)?))) }
}

fn length(text: &str) -> Result<Duration, String> {
    parse_time(text).map(Duration::from_secs)
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The tenant
    #[arg(long, value_parser = |text: &str| TenantName::new(text))]
    tenant: TenantName,
    /// Sandboxes of this flavour
    #[arg(long, value_parser = |text: &str| FlavourName::new(text), required_unless_present = "prefix", conflicts_with = "prefix")]
    flavour: Option<FlavourName>,
    /// Sandboxes whose names begin with this prefix
    #[arg(long = "name-prefix", value_name = "PREFIX", value_parser = |text: &str| NamePrefix::new(text))]
    prefix: Option<NamePrefix>,
    /// How many
    #[arg(long)]
    count: u32,
    /// When they are needed; without it, from now on
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Option<Moment>,
    /// Until when; without it, for good
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Moment>,
    /// How long before --from they are put aside, e.g. 30m [default: 30m]
    #[arg(long, value_name = "TIME", value_parser = length)]
    lead: Option<Duration>,
    /// How long after --from unused sandboxes go back, e.g. 45m; without it, at the end
    #[arg(long, value_name = "TIME", value_parser = span)]
    no_show: Option<NoShow>,
    /// The reservation's id, a UUID: the same again is the same reservation
    #[arg(long, value_parser = |text: &str| ReservationId::parse(text))]
    id: Option<ReservationId>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ChangeArguments {
    /// The reservation
    #[arg(value_parser = |text: &str| ReservationId::parse(text))]
    id: ReservationId,
    /// How many
    #[arg(long)]
    count: Option<u32>,
    /// When they are needed; none: from now on
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Option<Moment>,
    /// Until when; none: for good
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Moment>,
    /// How long before its beginning they are put aside
    #[arg(long, value_name = "TIME", value_parser = length)]
    lead: Option<Duration>,
    /// How long after its beginning unused sandboxes go back; none: at the end
    #[arg(long, value_name = "TIME", value_parser = span)]
    no_show: Option<NoShow>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct One {
    /// The reservation
    #[arg(value_parser = |text: &str| ReservationId::parse(text))]
    id: ReservationId,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(context: Context, command: ReservationCommand) -> anyhow::Result<Done> {
    match command {
        // What is reserved is compared with what the policy lets there be.
        ReservationCommand::Create(args) => create(&context, &policy::in_force(&context).await?, args).await,
        ReservationCommand::Change(args) => change(&context, &policy::in_force(&context).await?, args).await,
        ReservationCommand::List(output) => {
            let policy = policy::in_force_or_none(&context).await;
            let mut all = context.store.reservations.all().await?;
            all.sort_by_key(|one| (one.terms.begins_at().unwrap_or(one.made_at), one.id));
            show(&context, &policy, &all, output.json, Shown::List).await
        }
        ReservationCommand::Show(One { id, output }) => match context.store.reservations.get(id).await? {
            Some(found) => {
                let policy = policy::in_force_or_none(&context).await;
                show(&context, &policy, &[found], output.json, Shown::One).await
            }
            None => Ok(not_found(id)),
        },
        ReservationCommand::Delete(One { id, output }) => {
            let target = id.to_string();
            let closed = context.act((Act::DeleteReservation, &target, None), async |line| {
                let now = context.now().await?;
                let closed = reservations::close(&context.store, id, ReservationEnd::Deleted, now).await?;
                match &closed {
                    None => context.not_done(line, &NotDone::Refused(NO_SUCH.to_owned())).await,
                    Some(found) if found.closed.is_none_or(|closed| closed.at != now) => {
                        let ended = "it had ended before";
                        output::complain(&context.unchanged(line, ended).await);
                    }
                    Some(_) => {}
                }
                Ok(closed)
            });
            match closed.await? {
                Some(closed) => {
                    let policy = policy::in_force_or_none(&context).await;
                    show(&context, &policy, &[closed], output.json, Shown::Written).await
                }
                None => Ok(not_found(id)),
            }
        }
    }
}

async fn create(context: &Context, policy: &Policy, args: Create) -> anyhow::Result<Done> {
    let Create { tenant, flavour, prefix, count, from, until, lead, no_show, id, output } = args;
    let of_flavour = |name: &FlavourName| policy.flavours().get(name).map(|flavour| flavour.prefix.clone());
    let Some(prefix) = prefix.or_else(|| flavour.as_ref().and_then(of_flavour)) else {
        let name = flavour.map(|name| name.to_string()).unwrap_or_default();
        output::complain(&format!("the policy has no flavour {name:?}"));
        return Ok(Done::Misused);
    };
    let terms = ReservationTerms {
        tenant,
        prefix,
        count,
        from: from.and_then(|Moment(at)| at),
        until: until.and_then(|Moment(at)| at),
        lead: lead.unwrap_or(LEAD),
        no_show: no_show.and_then(|NoShow(time)| time),
    };
    let id = id.unwrap_or_else(|| ReservationId::from_uuid(context.entropy.uuid()));
    let (target, count) = (id.to_string(), Some(u64::from(count)));
    let written = context.act((Act::Reserve, &target, count), async |line| {
        let (now, by) = (context.now().await?, context.operator.as_str());
        let written = reservations::create(&context.store, policy, (id, &terms), by, now).await?;
        Ok(noted(context, line, written).await)
    });
    let written = written.await?;
    told(context, policy, id, written, output.json).await
}

async fn change(context: &Context, policy: &Policy, args: ChangeArguments) -> anyhow::Result<Done> {
    let ChangeArguments { id, count, from, until, lead, no_show, output } = args;
    let to = |stands: &ReservationTerms| ReservationTerms {
        tenant: stands.tenant.clone(),
        prefix: stands.prefix.clone(),
        count: count.unwrap_or(stands.count),
        from: from.map_or(stands.from, |Moment(at)| at),
        until: until.map_or(stands.until, |Moment(at)| at),
        lead: lead.unwrap_or(stands.lead),
        no_show: no_show.map_or(stands.no_show, |NoShow(time)| time),
    };
    let target = id.to_string();
    let written = context.act((Act::ChangeReservation, &target, count.map(u64::from)), async |line| {
        let written = reservations::change(&context.store, policy, id, to, context.now().await?).await?;
        Ok(noted(context, line, written).await)
    });
    let written = written.await?;
    told(context, policy, id, written, output.json).await
}

/// Says in the audit line of what was not written that it was not.
async fn noted(context: &Context, line: &AuditLine, written: ReservationWrite) -> ReservationWrite {
    if let Some(why) = written.refusal() {
        context.not_done(line, &NotDone::Refused(why)).await;
    }
    written
}

async fn told(
    context: &Context,
    policy: &Policy,
    id: ReservationId,
    written: ReservationWrite,
    json: bool,
) -> anyhow::Result<Done> {
    let why = match written {
        ReservationWrite::Stands(reservation) => {
            return show(context, policy, &[*reservation], json, Shown::Written).await;
        }
        ReservationWrite::Invalid(invalid) => {
            output::complain(&invalid.to_string());
            return Ok(Done::Misused);
        }
        ReservationWrite::NotFound => return Ok(not_found(id)),
        ReservationWrite::Exists(_) => format!("there is another reservation {id}"),
        ReservationWrite::Ended(_) => format!("reservation {id} has ended, and cannot be changed any more"),
        ReservationWrite::Conflict(why) => format!("nothing was reserved: {why}"),
    };
    output::complain(&why);
    Ok(Done::Failed)
}

fn not_found(id: ReservationId) -> Done {
    output::complain(&format!("there is no reservation {id}"));
    Done::Failed
}

/// What is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    List,
    One,
    /// One that this command has written. It stands so, whatever can be read of the rest.
    Written,
}

/// What is counted of each reservation, and how many will be missing of it.
type Counts = (BTreeMap<ReservationId, ReservedCount>, BTreeMap<ReservationId, u64>);

async fn counts(context: &Context, policy: &Policy, now: Timestamp) -> Result<Counts, StoreError> {
    let store = &context.store;
    let counted = store.census.get().await?.map(|census| census.by_reservation).unwrap_or_default();
    let risks = reservations::outlook(store, policy, &store.reservations.all().await?, now).await?;
    Ok((counted, risks))
}

async fn show(
    context: &Context,
    policy: &Policy,
    shown: &[Reservation],
    json: bool,
    what: Shown,
) -> anyhow::Result<Done> {
    let now = context.now().await?;
    let (counted, risks) = match counts(context, policy, now).await {
        Err(error) if what == Shown::Written => {
            output::complain(&format!("it is written; what is counted of it cannot be read: {error}"));
            Counts::default()
        }
        counts => counts?,
    };
    let views: Vec<_> =
        shown.iter().map(|one| ReservationView::new(one, policy, &counted, &risks, now)).collect();
    if json {
        if what == Shown::List {
            output::json(&views)?
        } else {
            output::json(&views.first())?
        }
        return Ok(Done::Ok);
    }
    let time = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), output::time);
    let rows = shown.iter().zip(&views).map(|(one, view)| {
        let Reservation { id, terms, held, .. } = one;
        [
            id.to_string(),
            terms.tenant.to_string(),
            terms.prefix.to_string(),
            view.state().to_owned(),
            terms.count.to_string(),
            held.to_string(),
            risks.get(id).copied().unwrap_or(0).to_string(),
            time(terms.from),
            time(terms.until),
        ]
    });
    let header =
        ["RESERVATION", "TENANT", "PREFIX", "STATE", "COUNT", "HELD", "AT RISK", "FROM (UTC)", "UNTIL (UTC)"];
    output::table(header, rows)?;
    Ok(Done::Ok)
}
