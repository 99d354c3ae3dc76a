//! What the kernel itself answers: `astrid.v1.request.*`.
//!
//! One table, [`Verb`]: a topic, who may ask there (the gate holds that), and a handler here. The kernel is one more receiver on the bus, so
//! a client asks it as it asks any capsule.

mod admin;
mod audit;
mod departure;
mod kept;
mod places;
mod record;
mod workspace;

pub(crate) use self::record::record_edit;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use astrid_wire::control::admin::Admin;
use astrid_wire::control::{
    CapsuleRequest, CapsuleState, Capsules, ChildCount, Messages, Mode, Sockets, State, Status, StoreReport, Verb,
};
use astrid_wire::manifest::Overflow;
use astrid_wire::problem::codes;
use astrid_wire::topic::TopicError;
use astrid_wire::{Pattern, Problem};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use self::places::Places;
use crate::bus::Subscribed;
use crate::bus::asks::Outcome;
use crate::bus::inbox::Inbox;
use crate::bus::message::{Body, Kind, Message, Source};
use crate::capsule::Host;
use crate::capsule::manager::Manager;
use crate::home::{Home, Socket};

/// Requests waiting at most; more are refused with `full`.
const QUEUE: u32 = 256;

/// Requests that wait until something is used at once, a quarter of them one principal's; more are refused with `too-many`. One that nobody
/// waits for any more ends with the next use.
const WATCHING_MAX: usize = 16;

/// Requests that wait for the disk at once, a quarter of them one principal's; more are refused with `too-many`.
const WAITING_MAX: usize = 32;

/// Whether a request waits for the disk.
fn waits(verb: Verb) -> bool {
    matches!(
        verb,
        Verb::DeadRetry | Verb::DeadDrop | Verb::Backup | Verb::CapsuleForget | Verb::Admin(_)
    )
}

/// Answers requests, and knows the daemon's state.
#[derive(Debug)]
pub struct Control {
    host: Arc<Host>,
    manager: Arc<Manager>,
    home: Home,
    mode: Mode,
    started_at_ms: u64,
    state: Mutex<State>,
    /// What keeps the daemon from being all that it should be, found at boot.
    reasons: Mutex<Vec<String>>,
    /// Held while a principal is made or deleted: what is kept under a name is looked at, and must not change until that is done.
    naming: tokio::sync::Mutex<()>,
    /// Held by the one backup that is made at a time.
    backing_up: Arc<Semaphore>,
    /// Told when the daemon shall stop.
    pub stop: Notify,
}

impl Control {
    /// A daemon that starts.
    pub fn new(host: Arc<Host>, manager: Arc<Manager>, home: Home, mode: Mode) -> Arc<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let uptime = host.uptime_ms();
        Arc::new(Self {
            host,
            manager,
            home,
            mode,
            started_at_ms: u64::try_from(now.as_millis())
                .unwrap_or(u64::MAX)
                .saturating_sub(uptime),
            state: Mutex::new(State::Starting),
            reasons: Mutex::default(),
            naming: tokio::sync::Mutex::default(),
            backing_up: Arc::new(Semaphore::new(1)),
            stop: Notify::new(),
        })
    }

    /// Another state, for everybody to see.
    pub fn set_state(&self, state: State) {
        *self.state.lock() = state;
        self.host.changed.notify_one();
    }

    /// Something is missing, and will be said in status.
    pub fn missing(&self, what: &str) {
        // One line each, also of errors that come with a hint below them.
        let lines: Vec<&str> = what.lines().map(str::trim).collect();
        self.reasons.lock().push(lines.join("; "));
    }

    /// The daemon as it is now.
    pub fn status(&self) -> Status {
        let capsules = self.manager.reports();
        let mut reasons = self.reasons.lock().clone();
        for capsule in &capsules {
            if let (CapsuleState::Down | CapsuleState::Refused | CapsuleState::Absent, Some(reason)) =
                (capsule.state, &capsule.reason)
            {
                reasons.push(format!("{}: {reason}", capsule.name));
            }
        }
        let store = self.store();
        if let Some(why) = &store.failed {
            reasons.push(format!("the store takes no commits: {why}"));
        }
        reasons.extend(self.host.gate.authority().problems());
        reasons.extend(self.host.guards.missing(&self.host.gate));
        if let Some(why) = self.host.audit.failing() {
            reasons.push(format!("what must be recorded is refused: {why}; {}", why.hint()));
        }
        let mut state = *self.state.lock();
        if state == State::Ready && !reasons.is_empty() {
            state = State::Degraded;
        }
        let socket = |s| self.home.socket(s).display().to_string();
        let metrics = &self.host.metrics;
        Status {
            state,
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode: self.mode,
            home: self.home.root().display().to_string(),
            started_at_ms: self.started_at_ms,
            uptime_ms: self.host.uptime_ms(),
            sockets: Sockets {
                operator: socket(Socket::Operator),
                session: socket(Socket::Session),
            },
            connections: self.manager.connections(),
            messages: Messages {
                published: metrics.bus_published.get(),
                delivered: metrics.bus_delivered.get(),
                refused: metrics.bus_refused.get(),
            },
            fuel_used: self.host.ledger.fuel(),
            children: self.children(),
            store,
            capsules,
            reasons,
        }
    }

    fn store(&self) -> StoreReport {
        let store = &self.host.store;
        StoreReport {
            failed: store.check_open().err().map(|why| why.to_string()),
            commits: store.sealed(),
            // While it is opened again nobody knows.
            bytes: store.engine().map_or(0, |engine| engine.size()),
            waiting: self.host.durable.waiting(),
        }
    }

    fn children(&self) -> ChildCount {
        let count = self.host.children.count();
        ChildCount {
            all: count.all as u64,
            unprotected: count.unprotected as u64,
            keeper_pid: count.keeper,
        }
    }

    /// Hears requests from now on. [`Control::run`] answers them.
    ///
    /// # Errors
    /// When a constant of ours is not a pattern: a test holds that they are.
    pub fn listen(&self) -> Result<(Arc<Inbox>, Vec<Subscribed>), TopicError> {
        let patterns = Verb::all()
            .map(|verb| verb.topic().parse::<Pattern>())
            .collect::<Result<Vec<_>, _>>()?;
        let permits = patterns.into_iter().map(|p| self.host.gate.declared(p)).collect();
        Ok(self.host.bus.listen("kernel", permits, QUEUE, Overflow::Reject))
    }

    /// Answers until the inbox is closed.
    pub async fn run(self: Arc<Self>, inbox: Arc<Inbox>) {
        let mut waiting = Places::new(WAITING_MAX);
        let mut watching = Places::new(WATCHING_MAX);
        while let Some(delivery) = inbox.next().await {
            let message = Arc::clone(&delivery.message);
            let places = match Verb::of(&message.topic) {
                Some(Verb::Admin(Admin::UsageWatch)) => &mut watching,
                Some(verb) if waits(verb) => &mut waiting,
                verb => {
                    self.answer_now(verb, &message);
                    continue;
                }
            };
            let work = Arc::clone(&self).answer_in_time(Arc::clone(&message));
            if !places.run(&message.principal, work) {
                let problem = Problem::new(codes::TOO_MANY, "too many requests of this kind wait for their answer");
                self.tell(&message, Err(problem.with_hint("try again")));
            }
        }
    }

    fn answer_now(&self, verb: Option<Verb>, message: &Message) {
        let (answer, stops) = (self.answer(message), verb == Some(Verb::Shutdown));
        if stops {
            self.record_shutdown(message);
        }
        self.tell(message, answer);
        if stops {
            tracing::info!(principal = %message.principal, message_id = %message.id, "asked to stop");
            self.stop.notify_one();
        }
    }

    async fn answer_in_time(self: Arc<Self>, message: Arc<Message>) {
        let Some(verb) = Verb::of(&message.topic) else { return };
        let work = self.answer_later(verb, &message);
        let answer = self.recorded(verb, &message, work).await;
        self.tell(&message, answer);
    }

    /// Gives an answer to who asked. Whoever stopped waiting is not told.
    fn tell(&self, message: &Message, answer: Result<Body, Problem>) {
        let outcome = answer.map_or_else(Outcome::Refusal, Outcome::Answer);
        if let Kind::Ask(address) = message.kind {
            self.host.bus.asks().settle(address, outcome, Source::Kernel);
        }
    }

    /// What waits for the disk.
    async fn answer_later(&self, verb: Verb, message: &Message) -> Result<Body, Problem> {
        match verb {
            Verb::DeadRetry => self.dead_retry(message).await,
            Verb::DeadDrop => self.dead_drop(message).await,
            Verb::Backup => self.backup(message).await,
            Verb::CapsuleForget => self.forget(message).await,
            Verb::Admin(admin) => self.admin(admin, message).await,
            _ => self.answer(message),
        }
    }

    fn answer(&self, message: &Message) -> Result<Body, Problem> {
        let unknown = || {
            Problem::new(
                codes::NOT_FOUND,
                format!("the kernel answers nothing on {}", message.topic),
            )
        };
        Ok(match Verb::of(&message.topic).ok_or_else(unknown)? {
            Verb::Status => Body::json(&self.status()),
            Verb::Capsules => Body::json(&Capsules {
                capsules: self.manager.reports(),
            }),
            Verb::Capsule => {
                let request: CapsuleRequest = kept::read(message, r#"{"name": "..."}"#)?;
                let missing = || {
                    Problem::new(
                        codes::NOT_FOUND,
                        format!("there is no capsule named {:?}", request.name),
                    )
                };
                Body::json(&self.manager.detail(&request.name).ok_or_else(missing)?)
            }
            Verb::Who => Body::json(&self.manager.who()),
            Verb::Interfaces => Body::json(&self.manager.interfaces()),
            Verb::Shutdown => Body::json(&serde_json::json!({})),
            Verb::DeadList => self.dead_list(message)?,
            Verb::DeadShow => self.dead_show(message)?,
            // Are answered elsewhere.
            Verb::DeadRetry | Verb::DeadDrop | Verb::Backup | Verb::CapsuleForget | Verb::Admin(_) => {
                return Err(unknown());
            }
        })
    }
}
