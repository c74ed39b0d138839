//! Finish of a story: it must leave nothing behind.

use nix::sys::signal::Signal;

use crate::broker::Broker;
use crate::wait::wait_for_condition;

impl Broker {
    /// Ends the broker and checks what is left of it:
    ///
    /// - `broker pool verify` finds nothing,
    /// - every queue is empty, and no dead letter wants something of the operator,
    /// - every process ends with exit code 0 when asked to, and none panicked,
    /// - no reply queue is left but those of killed APIs, and nothing came into a queue on the way out.
    ///
    /// # Panics
    ///
    /// When one of these does not hold.
    pub async fn finish(mut self) {
        if let Some(proxy) = self.proxy.as_ref() {
            proxy.calm();
        }
        self.sweep().await;
        self.verify().await;
        self.queues().are_empty().await;
        self.stop().await;
        let queues = self.queues();
        wait_for_condition("the reply queues to be deleted", async || match queues.reply_queues().await {
            left if left.is_empty() => Ok(()),
            left => Err(left),
        })
        .await;
        queues.are_empty().await;
        let letters = self.open_letters().await;
        assert!(letters.is_empty(), "dead letters are left: {letters:#?}");
        self.finished = true;
    }

    async fn stop(&mut self) {
        let apis = self.apis.drain(..).map(|server| server.process);
        let all: Vec<_> = apis.chain(self.workers.drain(..).map(|worker| worker.process)).collect();
        all.iter().for_each(|process| process.signal(Signal::SIGTERM));
        for process in all {
            process.stopped().await;
        }
    }
}
