//! Embedded DynamoDB endpoint: `dynoxide`, on a thread of its own.
//!
//! Each operation runs to its end on the thread that received it, behind one lock, with an fsync when the table is on disk. On the
//! broker's own runtime that would stall the API and the workers with it, hence the own thread and runtime, with what stands before
//! the library ([`front`]). Invariant: one process at a time has a data directory open (a lock file, released by the kernel
//! also when the process is killed), because the library would let two of them write.
//! A PartiQL `SELECT` over several partitions of an index does not go to it ([`partitions`](super::partitions)).
//! Expiry by TTL is added here: the library sweeps only when asked, which is at start and every hour. That is sooner than AWS
//! (up to days), which no condition may rely on. A sweep reads every item: in a table of a million it keeps a core busy for
//! most of a minute. A description of a table is told from memory until a call changes a table (`descriptions`): its counts are
//! as old as that, where AWS counts about every six hours.
//!
//! Differences from AWS that remain: reads of an index are consistent at once; there is no throttling, and never a
//! TransactionConflict or TransactionInProgress (`aws_shape` plays them); capacity is reported but unlimited; tables
//! are active as soon as they are created.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use broker_runtime::clock::Clock;
use broker_runtime::entropy::Entropy;
use dynoxide::Database;
use tokio::{
    net::TcpListener,
    sync::oneshot,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::front::{self, Front};
use super::operations::Transactions;
use super::{DRAIN, EndpointError};

const TABLE_FILE: &str = "table.sqlite3";
const LOCK_FILE: &str = "table.lock";
/// Says what wrote the directory.
const FORMAT_FILE: &str = "format";
const FORMAT: &str = "sandbox-broker table 1";
/// The modes of a data directory that is made here, and of the table in it.
const OWNER_ONLY: u32 = 0o700;
const OWNER_ONLY_FILE: u32 = 0o600;

/// How often expired items are removed.
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);

/// Handle of the database thread.
#[derive(Debug)]
pub(super) struct Running {
    /// Its sender is dropped last on the thread, also in a panic.
    ended: oneshot::Receiver<()>,
}

impl Running {
    /// Waits until the server has ended and its files are closed.
    pub(super) async fn stopped(self) {
        // Nothing is ever sent: the error means that the thread has ended.
        let _ = self.ended.await;
    }
}

/// An open database. Fields are dropped in order: the lock goes after the files are closed.
struct OpenTable {
    database: Arc<Database>,
    _lock: Option<File>,
}

/// Opens the table and serves it on `listener` until `shutdown`.
///
/// # Errors
///
/// When the data directory cannot be used, or no thread can be started.
pub(super) async fn start(
    listener: std::net::TcpListener,
    data_dir: Option<PathBuf>,
    clock: Clock,
    shutdown: CancellationToken,
) -> Result<Running, EndpointError> {
    let (ready, opened) = oneshot::channel();
    let (alive, ended) = oneshot::channel::<()>();
    thread::Builder::new()
        .name("dynamodb".to_owned())
        .spawn(move || {
            let _alive = alive;
            let started = open(data_dir.as_deref()).and_then(|table| {
                let entropy = Entropy::from_system();
                let hidden = front::hidden(&entropy).map_err(EndpointError::Thread)?;
                let behind = hidden.local_addr().map_err(EndpointError::Thread)?;
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(EndpointError::Thread)?;
                let (hidden, listener) = {
                    let _entered = runtime.enter();
                    (TcpListener::from_std(hidden), TcpListener::from_std(listener))
                };
                let database = Arc::downgrade(&table.database);
                let transactions = Arc::new(Transactions::new(clock.clone()));
                let front = Front { behind, database, clock, entropy, transactions };
                let listeners =
                    (hidden.map_err(EndpointError::Thread)?, listener.map_err(EndpointError::Thread)?);
                Ok((table, runtime, front, listeners))
            });
            match started {
                Ok((table, runtime, front, (hidden, listener))) => {
                    // Connections wait in the backlog from here on, so it counts as started. A caller who left has dropped nothing that is
                    // needed: the token still ends the server.
                    let _ = ready.send(Ok(()));
                    let library = serve(hidden, Database::clone(&table.database), shutdown.clone());
                    runtime.spawn(front.serve(listener, shutdown));
                    runtime.block_on(library);
                    // Also ends connections that did not end by themselves, and with them their use of the table.
                    runtime.shutdown_timeout(DRAIN);
                    drop(table);
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        })
        .map_err(EndpointError::Thread)?;
    match opened.await {
        Ok(started) => started.map(|()| Running { ended }),
        Err(_) => Err(EndpointError::Thread(std::io::Error::other("the database thread panicked"))),
    }
}

async fn serve(listener: TcpListener, database: Database, shutdown: CancellationToken) {
    let sweeper = tokio::spawn(sweep(database.clone()));
    let server =
        dynoxide::server::serve_with_shutdown(listener, database, shutdown.clone().cancelled_owned());
    let drained_too_long = async {
        shutdown.cancelled().await;
        sleep(DRAIN).await;
    };
    tokio::select! {
        ended = server => if let Err(reason) = ended {
            tracing::error!(reason, "the DynamoDB endpoint failed");
        },
        () = drained_too_long => tracing::debug!("connections to the DynamoDB endpoint were cut off at shutdown"),
    }
    sweeper.abort();
}

/// Removes expired items by the TTL attribute; never ends.
async fn sweep(database: Database) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let database = database.clone();
        match tokio::task::spawn_blocking(move || database.sweep_ttl()).await {
            Ok(Ok(0)) => {}
            Ok(Ok(removed)) => tracing::debug!(removed, "removed expired items"),
            Ok(Err(error)) => {
                tracing::warn!(%error, "expired items not removed, the next sweep tries again")
            }
            Err(error) => tracing::warn!(%error, "sweep of expired items failed"),
        }
    }
}

fn open(data_dir: Option<&Path>) -> Result<OpenTable, EndpointError> {
    let Some(data_dir) = data_dir else {
        let database = Database::memory().map_err(|error| EndpointError::Table {
            path: PathBuf::from(":memory:"),
            reason: error.to_string(),
        })?;
        return Ok(OpenTable { database: Arc::new(database), _lock: None });
    };
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| EndpointError::DataDir { path, source }
    };
    // What students hold is not for others to read.
    fs::DirBuilder::new().recursive(true).mode(OWNER_ONLY).create(data_dir).map_err(failed(data_dir))?;
    let lock = lock(data_dir)?;
    let path = data_dir.join(TABLE_FILE);
    if fs::metadata(&path).is_ok_and(|file| file.len() == 0) {
        return Err(EndpointError::Table { path, reason: "the file is empty".to_owned() });
    }
    stamp(data_dir)?;
    let opened = match path.to_str() {
        Some(utf8) => Database::new(utf8).map_err(|error| error.to_string()),
        None => Err("the path is not UTF-8".to_owned()),
    };
    let database = opened.map_err(|reason| EndpointError::Table { path: path.clone(), reason })?;
    // Also in a directory that others may read, and the journal, which was made with it.
    for suffix in ["", "-wal", "-shm"] {
        let file = data_dir.join(format!("{TABLE_FILE}{suffix}"));
        match fs::set_permissions(&file, fs::Permissions::from_mode(OWNER_ONLY_FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(failed(&file))?,
        }
    }
    Ok(OpenTable { database: Arc::new(database), _lock: Some(lock) })
}

/// Writes the stamp of the directory's format, or refuses another one's. A directory of before there were stamps is of this one.
fn stamp(data_dir: &Path) -> Result<(), EndpointError> {
    let path = data_dir.join(FORMAT_FILE);
    match fs::read_to_string(&path) {
        Ok(found) if found.trim() == FORMAT => Ok(()),
        Ok(found) => {
            let reason =
                format!("{:?} is not {FORMAT:?}: another version of the broker wrote it", found.trim());
            Err(EndpointError::Table { path, reason })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::write(&path, format!("{FORMAT}\n")).map_err(|source| EndpointError::DataDir { path, source })
        }
        Err(source) => Err(EndpointError::DataDir { path, source }),
    }
}

fn lock(data_dir: &Path) -> Result<File, EndpointError> {
    let path = data_dir.join(LOCK_FILE);
    let file = match File::options().create(true).truncate(false).write(true).open(&path) {
        Ok(file) => file,
        Err(source) => return Err(EndpointError::DataDir { path, source }),
    };
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(EndpointError::DataDirLocked(data_dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(EndpointError::DataDir { path, source }),
    }
}
