//! `broker tenants`: what each tenant may hold and holds, how many of its requests wait, what is reserved for it. The same as
//! `GET /v1/admin/tenants` and the console.

use broker_api::response::bodies::TenantView;
use broker_api::response::bodies::{OwnReservation, QuotaUse};
use broker_api::tenants::KnownTenants;
use broker_domain::{TenantName, Timestamp};
use clap::Args;

use crate::commands::policy;
use crate::context::Context;
use crate::done::Done;
use crate::output::{self, Output};

#[derive(Debug, Args)]
pub(crate) struct TenantsArgs {
    /// Only this tenant
    #[arg(long, value_name = "TENANT", value_parser = |text: &str| TenantName::new(text))]
    tenant: Option<TenantName>,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(context: Context, args: TenantsArgs) -> anyhow::Result<Done> {
    let policy = policy::in_force_or_none(&context).await;
    let (store, now) = (&context.store, context.now().await?);
    let (lines, reservations) = tokio::try_join!(store.waiting.lines(now), store.reservations.all())?;
    let known = KnownTenants { policy: &policy, lines: &lines, reservations: &reservations, now };
    let (mut tenants, mut after) = (Vec::new(), None);
    loop {
        let page = known.page(store, args.tenant.as_ref(), after.as_ref(), usize::MAX).await?;
        tenants.extend(page.tenants);
        after = page.after;
        if after.is_none() {
            break;
        }
    }
    if args.output.json {
        output::json(&tenants)?;
        return Ok(Done::Ok);
    }
    let header = ["TENANT", "FLAVOUR", "HELD", "MAX", "WAITING", "RESERVED NOW", "NEXT RESERVATION (UTC)"];
    output::table(header, tenants.iter().flat_map(rows))?;
    Ok(Done::Ok)
}

/// A row for each limit, and one for a tenant without limits.
fn rows(tenant: &TenantView) -> Vec<[String; 7]> {
    let none = || "-".to_owned();
    let held: u32 = tenant.running.iter().map(|one| one.held).sum();
    let count: u32 = tenant.running.iter().map(|one| one.count).sum();
    let reserved = if tenant.running.is_empty() { none() } else { format!("{held} of {count}") };
    let next = |one: &OwnReservation| {
        let from = one.from.map_or_else(none, |from| output::time(Timestamp::from_secs(from)));
        format!("{} from {from}", one.count)
    };
    let next = tenant.next.as_ref().map_or_else(none, next);
    let row = |limit: Option<&QuotaUse>| {
        let of = |text: &dyn Fn(&QuotaUse) -> String| limit.map_or_else(none, text);
        let flavour = of(&|limit| limit.flavour.clone());
        let (held, max) = (of(&|limit| limit.held.to_string()), of(&|limit| limit.max.to_string()));
        let waiting = tenant.waiting.to_string();
        [tenant.tenant.clone(), flavour, held, max, waiting, reserved.clone(), next.clone()]
    };
    if tenant.limits.is_empty() {
        return vec![row(None)];
    }
    tenant.limits.iter().map(|limit| row(Some(limit))).collect()
}
