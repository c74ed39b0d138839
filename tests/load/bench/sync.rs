//! Memory of a worker over a sync of two long lists: the provider's, in real HTTP pages, and the table's index, as DynamoDB
//! would page it.
//!
//! Both are generated page by page and are equal, so the sync finds nothing to change: a table of ten million sandboxes fits on
//! no developer's machine. Everything else that the worker asks of DynamoDB the embedded endpoint answers.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use broker_local::aws_shape::{Upstream, operation};
use broker_tests::cli::JobReport;
use broker_tests::endpoint::Endpoints;
use broker_tests::{Broker, Setup};
use bytes::Bytes;
use clap::Args;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;

/// What the worker may need at most, in MiB.
const LIMIT_MIB: f64 = 100.0;
/// The shards of the index.
const SHARDS: u64 = 16;
/// Items of a page of the index: a megabyte holds about as many.
const ITEMS: u64 = 2_500;
/// The token of the provider.
const TOKEN: &str = "tok-of-a-long-list";

/// How long the lists are.
#[derive(Debug, Args)]
pub(crate) struct Sync {
    /// Sandboxes in both lists
    #[arg(long, default_value_t = 10_000_000)]
    rows: u64,
    /// Rows of a page of the provider's list
    #[arg(long, default_value_t = 1_000)]
    page: u64,
}

/// The two lists, and DynamoDB behind one of them.
struct Lists {
    rows: u64,
    page: u64,
    upstream: Upstream,
    /// Whether the index is the generated one.
    on: AtomicBool,
}

impl Sync {
    /// Measures; fails if the worker needs more than the limit, or finds a difference.
    pub(crate) async fn run(self) -> ExitCode {
        let upstream = Upstream::new(&Endpoints::shared().await.urls.dynamodb_url);
        let lists =
            Arc::new(Lists { rows: self.rows, page: self.page, upstream, on: AtomicBool::new(false) });
        let url = serve(Arc::clone(&lists)).await;
        let setup = Setup::new()
            .apis(0)
            .workers(1)
            .var("AWS_ENDPOINT_URL_DYNAMODB", &url)
            .var("BROKER_PROVIDER_URL", &url)
            .var("BROKER_PROVIDER_TOKEN", TOKEN);
        let broker = Broker::start(setup).await;
        // One sync at a time: the schedule's would be beside this one.
        broker.cli_ok(&["job", "pause", "sync"]).await;
        let before = broker.worker_process(0).peak_mib();
        lists.on.store(true, Ordering::Relaxed);
        let ran = broker.cli_ok(&["job", "run", "sync", "--timeout-s", "7200", "--json"]).await;
        lists.on.store(false, Ordering::Relaxed);
        let ran: JobReport = ran.json();
        let peak = broker.worker_process(0).peak_mib();
        broker.cli_ok(&["job", "resume", "sync"]).await;
        broker.finish().await;
        println!("| sandboxes in both lists | changed | s | worker before, MiB | worker at most, MiB |");
        println!("|---|---|---|---|---|");
        let seconds = ran.duration_ms as f64 / 1_000.0;
        println!("| {} | {} | {seconds:.0} | {before:.1} | {peak:.1} |", ran.found, ran.changed);
        if ran.found == self.rows && ran.changed == 0 && peak <= LIMIT_MIB {
            ExitCode::SUCCESS
        } else {
            println!("{LIMIT_MIB} MiB are allowed, and nothing may change: {ran:?}");
            ExitCode::FAILURE
        }
    }
}

/// Serves both lists; where.
async fn serve(lists: Arc<Lists>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let lists = Arc::clone(&lists);
            let service = service_fn(move |request| {
                let lists = Arc::clone(&lists);
                async move { Ok::<_, Infallible>(lists.answer(request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(async move { connection.serve_connection(TokioIo::new(stream), service).await });
        }
    });
    url
}

impl Lists {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        if head.uri.path() == "/current_user/accounts" {
            return Response::new(Full::from(self.listed(&head)));
        }
        let body = body.collect().await.expect("a call").to_bytes();
        if self.on.load(Ordering::Relaxed)
            && operation(&head) == "Query"
            && let Some(page) = self.indexed(&body)
        {
            return Response::new(Full::from(page));
        }
        let asked = operation(&head).to_owned();
        let passing = self.upstream.passing(head);
        passing.pass_on(&asked, body).await.expect("the endpoint answers").map(Full::from)
    }

    /// A page of the provider's list.
    fn listed(&self, head: &Parts) -> String {
        let number =
            head.uri.query().and_then(|query| query.strip_prefix("page=")?.parse().ok()).unwrap_or(1_u64);
        let (from, until) = ((number - 1) * self.page, (number * self.page).min(self.rows));
        let mut text = "{\"results\":[".to_owned();
        for n in from..until {
            let comma = if n == from { "" } else { "," };
            let _ = write!(
                text,
                "{comma}{{\"id\":\"identity/accounts/{}\",\"csp_id\":\"{}\",\"name\":\"{}\",\"account_type\":\"sandbox\",\
                 \"state\":\"active\",\"created_at\":\"2026-11-01T08:00:00Z\"}}",
                uuid(n),
                id(n),
                name(n)
            );
        }
        let next = if until < self.rows { format!("\"?page={}\"", number + 1) } else { "null".to_owned() };
        let _ = write!(text, "],\"next\":{next}}}");
        text
    }

    /// A page of the index's available sandboxes, if that is what is asked for.
    fn indexed(&self, body: &[u8]) -> Option<String> {
        let asked: Value = serde_json::from_slice(body).ok()?;
        let whole = asked["ExpressionAttributeNames"].as_object()?.len() == 1;
        let shard = asked["ExpressionAttributeValues"][":shard"]["S"].as_str()?;
        let number: u64 = shard.strip_prefix("available#")?.parse().ok()?;
        if !whole || asked["IndexName"].as_str()? != "StateIndex" {
            return None;
        }
        // Every sixteenth is in a shard; a page begins after the sandbox that its key names.
        let after =
            asked["ExclusiveStartKey"]["PK"]["S"].as_str().and_then(|pk| pk.rsplit('-').next()?.parse().ok());
        let first: u64 = after.map_or(number, |after: u64| after + SHARDS);
        let mut text = "{\"Items\":[".to_owned();
        let (mut n, mut count) = (first, 0);
        while n < self.rows && count < ITEMS {
            let comma = if count == 0 { "" } else { "," };
            let _ = write!(
                text,
                "{comma}{{{},\"sandbox_id\":{{\"S\":\"{}\"}},\"name\":{{\"S\":\"{}\"}},\"version\":{{\"N\":\"1795940000000\"}},\
                 \"external_id\":{{\"S\":\"identity/accounts/{}\"}}}}",
                key(n, shard),
                id(n),
                name(n),
                uuid(n)
            );
            (n, count) = (n + SHARDS, count + 1);
        }
        let _ = write!(text, "],\"Count\":{count},\"ScannedCount\":{count}");
        if n < self.rows {
            let _ = write!(text, ",\"LastEvaluatedKey\":{{{}}}", key(n - SHARDS, shard));
        }
        text.push('}');
        Some(text)
    }
}

/// The keys of an item in table and index.
fn key(n: u64, shard: &str) -> String {
    format!(
        "\"PK\":{{\"S\":\"SBX#{}\"}},\"SK\":{{\"S\":\"META\"}},\"state_shard\":{{\"S\":\"{shard}\"}},\"state_key\":{{\"S\":\"{}\"}}",
        id(n),
        name(n)
    )
}

fn id(n: u64) -> String {
    format!("csp-sandbox-{n:08}")
}

fn name(n: u64) -> String {
    format!("lab-environment-{n:08}")
}

/// A UUID of its own for each.
fn uuid(n: u64) -> String {
    let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (high, low) = (mixed >> 32, mixed & 0xffff_ffff);
    format!("{high:08x}-{:04x}-4{:03x}-8{:03x}-{n:012x}", low >> 16, low & 0xfff, high & 0xfff)
}
