//! Observation of a broker: metrics, logs, and its use of the machine.

use serde_json::Value;

use crate::api::Api;
use crate::broker::{Broker, Worker};
use crate::endpoint::Endpoints;
use crate::process::Process;

impl Broker {
    /// Every process's `/metrics`.
    pub fn metrics(&self) -> impl Iterator<Item = &Api> {
        let apis = self.apis.iter().map(|server| &server.api);
        apis.chain(self.workers.iter().map(Worker::metrics))
    }

    /// Name, resident memory in MiB and processor seconds of each process, the endpoints' last.
    pub async fn resources(&self) -> Vec<(String, f64, f64)> {
        let own =
            self.apis.iter().map(|server| &server.process).chain(self.workers.iter().map(|w| &w.process));
        let endpoints = match &self.endpoints {
            Some(own) => own,
            None => Endpoints::shared().await,
        };
        let processes = own.chain([endpoints.process()]);
        processes.map(|p| (p.name().to_owned(), p.resident_mib(), p.cpu_seconds())).collect()
    }

    /// Everything that all processes logged so far.
    pub fn logs(&self) -> String {
        let apis = self.apis.iter().map(|server| &server.process);
        apis.chain(self.workers.iter().map(|worker| &worker.process)).map(Process::log).collect()
    }

    /// The lines with this message that all processes logged so far.
    pub fn logged(&self, message: &str) -> Vec<Value> {
        let apis = self.apis.iter().map(|server| &server.process);
        let all = apis.chain(self.workers.iter().map(|worker| &worker.process));
        all.flat_map(|process| process.logged(message)).collect()
    }
}
