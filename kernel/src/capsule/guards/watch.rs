//! What a guard may call: it reads its capsule's table, and logs. Anything else ends it.
//!
//! The state of its instance is of another type than that of an actor's, with a linker of its own: there is nothing in it that could act.

use std::sync::Arc;
use std::time::Duration;

use astrid_wire::Principal;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, HasSelf, Linker};

use super::run::Shown;
use crate::authority::{Permit, Standing, Subject};
use crate::bus::Saying;
use crate::bus::message::MessageId;
use crate::capsule::Host;
use crate::capsule::actor::Actor;
use crate::capsule::guest::Limits;
use crate::capsule::host::bindings::GuardingPre;
use crate::capsule::host::bindings::astrid::kernel::{kv, log};
use crate::capsule::host::kv::{check_key, guest_page};
use crate::capsule::host::log::{LINES_MAX, Line};
use crate::capsule::loaded::Capsule;
use crate::capsule::working::Working;
use crate::store::engine::Span;
use crate::store::table::{self, Table};

/// A call that a guard made and may not.
#[derive(Clone, Debug, thiserror::Error)]
#[error("it called {0}; a guard reads its table, and logs")]
pub(super) struct NotForGuards(Arc<str>);

/// The data of a guard's store.
#[derive(Debug)]
pub struct Watch {
    host: Arc<Host>,
    capsule: Arc<Capsule>,
    /// What the capsule itself may do.
    standing: Standing,
    /// Who speaks.
    pub(super) speaker: Arc<Actor>,
    principal: Principal,
    id: MessageId,
    /// The one table of the capsule.
    table: Table,
    pub(super) working: Working,
    pub(super) limits: Limits,
    /// How long it ran, in ticks.
    pub(super) ran: Duration,
    lines: u32,
}

impl Watch {
    pub(super) fn new(host: &Arc<Host>, capsule: &Arc<Capsule>, shown: &Shown<'_>, saying: &Saying) -> Self {
        let max = usize::try_from(capsule.manifest.runtime.memory.0).unwrap_or(usize::MAX);
        Self {
            standing: host.gate.authority().standing(&Principal::capsule(&capsule.name)),
            host: Arc::clone(host),
            speaker: Arc::clone(shown.speaker),
            principal: saying.principal.clone(),
            id: shown.id,
            table: Table::of(table::Kind::Kv, &capsule.name, &table::Scope::System),
            working: Working::default(),
            limits: Limits::new(max, shown.account),
            ran: Duration::ZERO,
            lines: 0,
            capsule: Arc::clone(capsule),
        }
    }

    fn table(&self) -> Result<Permit<Table>, kv::KvError> {
        let subject = Subject {
            acl: &self.capsule.acl,
            standing: &self.standing,
            socket: None,
        };
        Ok(self.host.gate.table(subject, self.table.clone())?)
    }
}

fn only_reads<T>() -> Result<T, kv::KvError> {
    Err(kv::KvError::Denied("a guard only reads its table".to_owned()))
}

impl kv::Host for Watch {
    fn get(&mut self, key: Vec<u8>) -> Result<Option<Vec<u8>>, kv::KvError> {
        check_key(&key)?;
        let table = self.table()?;
        let value = self.working.get(&self.host.store, &table, &key)?;
        Ok(value.map(|value| value.to_vec()))
    }

    async fn put(&mut self, _: Vec<u8>, _: Vec<u8>) -> Result<(), kv::KvError> {
        only_reads()
    }

    async fn delete(&mut self, _: Vec<u8>) -> Result<(), kv::KvError> {
        only_reads()
    }

    async fn compare_and_swap(
        &mut self,
        _: Vec<u8>,
        _: Option<Vec<u8>>,
        _: Option<Vec<u8>>,
    ) -> Result<bool, kv::KvError> {
        only_reads()
    }

    fn scan(
        &mut self,
        start: Vec<u8>,
        end: Option<Vec<u8>>,
        limit: u32,
        backwards: bool,
    ) -> Result<kv::Page, kv::KvError> {
        let table = self.table()?;
        let span = Span {
            start: &start,
            end: end.as_deref(),
            backwards,
        };
        Ok(guest_page(self.working.scan(&self.host.store, &table, span, limit)?))
    }
}

impl log::Host for Watch {
    fn write(&mut self, level: log::Level, message: String, fields: Vec<(String, String)>) {
        self.lines = self.lines.saturating_add(1);
        if self.lines > LINES_MAX {
            return;
        }
        let line = Line {
            capsule: &self.capsule.name,
            // An instance of its own, of no generation.
            generation: 0,
            id: self.id,
            principal: &self.principal,
        };
        line.write(level, &message, &fields);
    }
}

/// A component's guard, linked with what it may call, and with an end for whatever else it imports.
///
/// # Errors
/// Wasmtime's: it does not export `guard` as `wit/` has it.
pub fn link(component: &Component) -> wasmtime::Result<GuardingPre<Watch>> {
    let engine = component.engine();
    let mut linker: Linker<Watch> = Linker::new(engine);
    kv::add_to_linker::<_, HasSelf<_>>(&mut linker, |watch| watch)?;
    log::add_to_linker::<_, HasSelf<_>>(&mut linker, |watch| watch)?;
    let ty = component.component_type();
    for (interface, import) in ty.imports(engine) {
        let ComponentItem::ComponentInstance(functions) = import.ty else {
            continue;
        };
        if ["astrid:kernel/kv@", "astrid:kernel/log@"]
            .iter()
            .any(|own| interface.starts_with(own))
        {
            continue;
        }
        let mut instance = linker.instance(interface)?;
        for (function, export) in functions.exports(engine) {
            if matches!(export.ty, ComponentItem::ComponentFunc(_)) {
                let name: Arc<str> = format!("{interface}#{function}").into();
                instance.func_new(function, move |_, _, _, _| Err(NotForGuards(Arc::clone(&name)).into()))?;
            }
        }
    }
    GuardingPre::new(linker.instantiate_pre(component)?)
}
