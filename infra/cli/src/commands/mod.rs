//! Commands, one file each.

pub(crate) mod audit;
pub(crate) mod dead_letters;
pub(crate) mod doctor;
pub(crate) mod endpoints;
mod extend;
pub(crate) mod fleet;
pub(crate) mod hooks;
pub(crate) mod init;
pub(crate) mod job;
pub(crate) mod lease;
pub(crate) mod overview;
pub(crate) mod policy;
pub(crate) mod pool;
pub(crate) mod processes;
pub(crate) mod provider;
pub(crate) mod quarantine;
pub(crate) mod queues;
mod record;
pub(crate) mod refill;
mod resend;
pub(crate) mod reservation;
pub(crate) mod sandbox;
pub(crate) mod tenants;
pub(crate) mod track;
pub(crate) mod up;
pub(crate) mod waiting;
