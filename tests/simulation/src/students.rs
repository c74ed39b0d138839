//! Students of the simulation: some return their sandboxes, some leave. Their requests go through the queue, some twice.

use broker_domain::{
    AllocateRequest, Fingerprint, Grant, IdempotencyKey, LabDuration, LeaseKey, Outcome, PersistedRequest,
    RequestId, RequestState, ReturnRequest, SandboxId, Subject, TenantName, Times, Timestamp, TrackId,
};
use broker_messages::RequestMessage;
use tokio::task::JoinSet;

use super::{HOUR, MINUTE, Week};

/// A student's lease, and the time of its return, if any.
#[derive(Debug)]
pub(super) struct Student {
    tenant: Option<TenantName>,
    track: TrackId,
    request: RequestId,
    gives_back_at: Option<Timestamp>,
    grant: Option<Grant>,
}

/// A request that is not sent yet.
struct Asked {
    student: Student,
    record: PersistedRequest,
    message: String,
}

impl Week {
    pub(super) async fn students_come_and_go(&mut self) {
        for _ in 0..self.process.entropy.below(4) {
            let stays = 10 * MINUTE * u32::try_from(1 + self.process.entropy.below(24)).unwrap();
            let gives_back_at = self.chance(70).then(|| self.now().plus(stays));
            self.ask(gives_back_at).await;
        }
        self.students_move_on().await;
    }

    /// Each checks for its sandbox, and returns it when its time has come.
    pub(super) async fn students_move_on(&mut self) {
        let now = self.now();
        for mut student in std::mem::take(&mut self.students) {
            if student.grant.is_none() {
                let record = self.store.requests.get(student.request).await.unwrap().expect("recorded");
                match record.state {
                    RequestState::Ended(Outcome::Created(grant)) => {
                        self.count("allocations");
                        self.held.push(grant.clone());
                        student.grant = Some(grant);
                    }
                    RequestState::Ended(_) => {
                        self.count("allocations refused");
                        continue;
                    }
                    RequestState::Queued if now > record.deadline => continue,
                    RequestState::Queued => {}
                }
            }
            match (&student.grant, student.gives_back_at) {
                (Some(grant), Some(at)) if at <= now => {
                    let sandbox_id = grant.sandbox_id.clone();
                    self.give_back(&student.track, sandbox_id).await;
                }
                (_, Some(_)) | (None, None) => self.students.push(student),
                (Some(_), None) => self.count("students who just left"),
            }
        }
    }

    pub(super) async fn ask(&mut self, gives_back_at: Option<Timestamp>) {
        let Asked { student, record, message } = self.request(None, gives_back_at);
        self.store.requests.record(&record).await.unwrap();
        self.send(message).await;
        self.students.push(student);
    }

    /// So many students of `tenant` ask at the same time.
    pub(super) async fn ask_together(
        &mut self,
        tenant: &TenantName,
        students: usize,
        gives_back_at: Option<Timestamp>,
    ) {
        let mut asking = JoinSet::new();
        for _ in 0..students {
            let Asked { student, record, message } = self.request(Some(tenant.clone()), gives_back_at);
            self.students.push(student);
            let (store, requests, twice) = (self.store.clone(), self.requests.clone(), self.chance(10));
            asking.spawn(async move {
                store.requests.record(&record).await.unwrap();
                for _ in 0..=usize::from(twice) {
                    requests.send(message.clone()).await.unwrap();
                }
            });
        }
        asking.join_all().await;
    }

    /// How many students of `tenant` have a sandbox, and have not given it back.
    pub(super) fn served(&self, tenant: &TenantName) -> usize {
        let of_tenant = self.students.iter().filter(|student| student.tenant.as_ref() == Some(tenant));
        of_tenant.filter(|student| student.grant.is_some()).count()
    }

    /// A request of a new student.
    fn request(&self, tenant: Option<TenantName>, gives_back_at: Option<Timestamp>) -> Asked {
        let now = self.now();
        let id = self.process.entropy.request_id(now);
        let track = TrackId::new(format!("student-{id}")).unwrap();
        let hours = 1 + u64::try_from(self.process.entropy.below(6)).unwrap();
        let ask = AllocateRequest {
            request_id: id,
            lease_key: LeaseKey { key: IdempotencyKey::from(&track), track: track.clone() },
            key_is_explicit: false,
            fingerprint: Fingerprint::of([]),
            track_name: None,
            prefix: None,
            lab_duration: LabDuration::nearest(hours),
            heartbeat: None,
            may_wait: false,
            limited: false,
            tenant: tenant.clone(),
            asynchronous: true,
            times: Times { enqueued_at: now, reply_by: now, deadline: now.plus(2 * HOUR) },
        };
        let record = PersistedRequest {
            request_id: id,
            track: track.clone(),
            subject: Subject::Allocate(ask.lease_key.clone()),
            state: RequestState::Queued,
            parked: None,
            created_at: now,
            deadline: ask.times.deadline,
            asynchronous: true,
            message: None,
        };
        let message = RequestMessage::allocate(&ask, self.nobody()).encode();
        Asked { student: Student { tenant, track, request: id, gives_back_at, grant: None }, record, message }
    }

    async fn give_back(&mut self, track: &TrackId, sandbox_id: SandboxId) {
        let now = self.now();
        let request_id = self.process.entropy.request_id(now);
        let times = Times { enqueued_at: now, reply_by: now, deadline: now.plus(HOUR) };
        let mark = ReturnRequest { request_id, track: track.clone(), sandbox_id, times };
        self.send(RequestMessage::return_sandbox(&mark, self.nobody()).encode()).await;
        self.count("given back");
    }

    /// A reply queue that does not exist: no caller waits.
    fn nobody(&self) -> String {
        self.urls.names().reply(uuid::Uuid::nil()).to_string()
    }

    async fn send(&self, message: String) {
        // Some come twice.
        for _ in 0..=usize::from(self.chance(10)) {
            self.requests.send(message.clone()).await.unwrap();
        }
    }
}
