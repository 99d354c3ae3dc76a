//! The definitions as they are kept: in the operator's document, and nowhere else.
//!
//! Each use reads it anew, so a person's edit is never overwritten by what was read before; a change that comes in between is noticed by the
//! kernel, and refused.

use std::collections::BTreeMap;
use std::rc::Rc;

use astrid_sdk::{Context, Problem};

use crate::definition::Definition;
use crate::document::{self, Editing};
use crate::plan::Plan;

/// What the document says.
pub struct Ledger {
    text: Option<String>,
    /// By name.
    pub definitions: BTreeMap<String, Definition>,
}

impl Ledger {
    /// Reads it. No document is one without definitions.
    ///
    /// # Errors
    /// It cannot be read, or is not valid.
    pub fn read(ctx: &Context) -> Result<Self, Problem> {
        let text = ctx.read_document(document::NAME)?;
        let definitions = document::parse(text.as_deref().unwrap_or_default(), document::NAME)?;
        Ok(Self { text, definitions })
    }

    /// Changes it, and writes it if that made a difference.
    ///
    /// # Errors
    /// The result is not valid, or cannot be written.
    pub fn change(&mut self, ctx: &mut Context, edit: impl FnOnce(&mut Editing)) -> Result<(), Problem> {
        let mut editing = Editing::new(self.text.as_deref())?;
        edit(&mut editing);
        let text = editing.text();
        if self.text.as_deref().unwrap_or_default() == text {
            return Ok(());
        }
        // What holds for the whole, such as how many instances there may be, is known only now.
        let definitions = document::parse(&text, document::NAME)?;
        ctx.replace_document(document::NAME, self.text.as_deref(), &text)?;
        self.text = Some(text);
        self.definitions = definitions;
        Ok(())
    }

    /// What follows from the definitions.
    pub fn plans(&self) -> BTreeMap<Rc<str>, Plan> {
        self.definitions
            .values()
            .map(|definition| {
                let plan = Plan::of(definition);
                (plan.name.clone(), plan)
            })
            .collect()
    }
}
