//! `broker pool`: seed, list, count, verify, pause, adopt and reconcile the pool.

pub(crate) mod adopt;
pub(crate) mod list;
pub(crate) mod pause;
pub(crate) mod reconcile;
pub(crate) mod seed;
pub(crate) mod stats;
pub(crate) mod verify;
