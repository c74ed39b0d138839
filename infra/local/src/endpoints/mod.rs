//! Embedded SQS and DynamoDB endpoints of `broker up`: the broker without an AWS account.
//!
//! They serve the real wire protocols over HTTP on the loopback interface, so the same program runs against them and against
//! AWS: same SDK, same requests, same errors. Invariant: a difference to AWS is named in `sqs` or `dynamodb`. A difference
//! may be stricter than AWS; a kinder one is a bug.
//!
//! They do not authenticate (any credentials are accepted, so only loopback addresses are served, and no page of a browser:
//! [`OwnPages`](broker_runtime::own_pages::OwnPages)), do not
//! survive on their own (queues live in memory, the table too unless it has a data directory), and do not print.

mod descriptions;
mod dynamodb;
mod front;
mod operations;
mod partitions;
mod sqs;

#[cfg(test)]
mod tests;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use broker_runtime::clock::Clock;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

/// How long connections are served after shutdown began. Requests take milliseconds and long polls are ended at once, so
/// only a peer that stopped in the middle of a request takes so long.
const DRAIN: Duration = Duration::from_secs(1);

/// Connections that may wait to be accepted; more than the thousand simultaneous callers of the load tests.
const BACKLOG: u32 = 4096;

/// The pause when no connection can be accepted, mostly for lack of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// The options of the endpoints.
#[derive(Clone, Debug)]
pub struct EndpointOptions {
    /// A loopback address: the endpoints accept any credentials.
    pub host: IpAddr,
    /// Port of the DynamoDB endpoint; 0 takes any that is free.
    pub dynamodb_port: u16,
    /// Port of the SQS endpoint; 0 takes any that is free.
    pub sqs_port: u16,
    /// Keeps the tables in `table.sqlite3` of this directory, which is created if necessary. `None`: in memory.
    pub data_dir: Option<PathBuf>,
    /// The time that their answers tell.
    pub clock: Clock,
}

/// Running endpoints. They run until the token given to [`start`] is cancelled, also when this is dropped.
#[derive(Debug)]
pub struct Endpoints {
    /// Like `http://127.0.0.1:4567`, without a slash at the end.
    pub dynamodb_url: String,
    /// Like `http://127.0.0.1:4566`, without a slash at the end. Queue URLs begin with it.
    pub sqs_url: String,
    dynamodb: dynamodb::Running,
    sqs: tokio::task::JoinHandle<()>,
}

/// Why the endpoints did not start, and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Anyone who reaches the endpoints may use them.
    #[error(
        "{0} is not a loopback address: the embedded endpoints check no credentials; use 127.0.0.1 or ::1"
    )]
    NotLoopback(IpAddr),
    /// The port is taken, or may not be used.
    #[error(
        "the {endpoint} endpoint cannot listen on {address}: {source}; stop what uses the port, or choose another (0 takes any)"
    )]
    Listen {
        /// SQS or DynamoDB.
        endpoint: &'static str,
        /// The requested address.
        address: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The data directory, or a file in it, cannot be created or written.
    #[error(
        "cannot write {path}: {source}; check the data directory's owner and permissions, or choose another"
    )]
    DataDir {
        /// The directory or file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Another process has the data directory open.
    #[error("data directory {0} is in use by another broker; stop that one, or choose another directory")]
    DataDirLocked(PathBuf),
    /// The file is not a table of the broker, is damaged, or its path is not UTF-8.
    #[error("cannot open the table {path}: {reason}; move the file away to begin with an empty table")]
    Table {
        /// The SQLite file.
        path: PathBuf,
        /// The error of the database.
        reason: String,
    },
    /// The database thread could not be started.
    #[error("cannot start the DynamoDB endpoint: {0}; the machine is short of threads or memory")]
    Thread(#[source] io::Error),
}

/// Starts both endpoints; when it returns, they accept requests.
///
/// # Errors
///
/// When an address cannot be listened on or the data directory cannot be used. Nothing keeps running then.
pub async fn start(
    options: EndpointOptions,
    shutdown: CancellationToken,
) -> Result<Endpoints, EndpointError> {
    if !options.host.is_loopback() {
        return Err(EndpointError::NotLoopback(options.host));
    }
    let (sqs_listener, sqs_address) = listen("SQS", SocketAddr::new(options.host, options.sqs_port))?;
    let (dynamodb_listener, dynamodb_address) =
        listen("DynamoDB", SocketAddr::new(options.host, options.dynamodb_port))?;

    let clock = options.clock;
    let dynamodb_listener = dynamodb_listener.into_std().map_err(EndpointError::Thread)?;
    let dynamodb =
        dynamodb::start(dynamodb_listener, options.data_dir, clock.clone(), shutdown.clone()).await?;
    let sqs = tokio::spawn(sqs::serve(sqs_listener, sqs_address, clock, shutdown));
    Ok(Endpoints {
        dynamodb_url: format!("http://{dynamodb_address}"),
        sqs_url: format!("http://{sqs_address}"),
        dynamodb,
        sqs,
    })
}

impl Endpoints {
    /// Waits until both servers have ended, which they do within about a second after the token was cancelled. Then the
    /// ports are free and the data directory may be opened again.
    pub async fn stopped(self) {
        self.dynamodb.stopped().await;
        if let Err(error) = self.sqs.await {
            tracing::error!(%error, "the SQS endpoint panicked");
        }
    }
}

/// A listener whose accepted connections have `TCP_NODELAY` set (Linux inherits it), also where a library accepts them: with
/// Nagle's algorithm, a response written in two parts waits for the delayed ACK of the first, 40 ms.
fn listen(endpoint: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), EndpointError> {
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?; // binds also while connections of the last run are in TIME_WAIT
        socket.set_nodelay(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    open().map_err(|source| EndpointError::Listen { endpoint, address, source })
}
