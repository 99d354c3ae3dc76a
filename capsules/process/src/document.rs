//! The document `processes.toml`: reading it, with the place of everything that is wrong, and changing it so that a person's comments and order
//! survive.
//!
//! A change goes key by key: what is the same stays as it was written. Deliberately absent: keeping the document; [`crate::ledger`] does that.

use std::collections::BTreeMap;
use std::ops::Range;

use astrid_sdk::{Problem, codes};
use astrid_wire::manifest::ManifestError;
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, TableLike};

use crate::definition::Definition;
use crate::rules::{self, Broken, DEFINITIONS_MAX, INSTANCES_TOTAL_MAX};

/// The name of the document in the home's `etc/`.
pub const NAME: &str = "processes.toml";
/// Bytes of a document: five hundred for each of the definitions that it may have.
pub const DOCUMENT_BYTES_MAX: usize = DEFINITIONS_MAX * 512;
/// The key of the definitions.
const PROCESSES: &str = "processes";

/// What is wrong with a document: `origin:line:column: what`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}{}: {what}", place.map(|(line, column)| format!(":{line}:{column}")).unwrap_or_default())]
pub struct Invalid {
    /// What it is called.
    pub origin: String,
    /// Line and column, from 1.
    pub place: Option<(usize, usize)>,
    /// What is wrong.
    pub what: String,
    /// What could be done.
    pub hint: Option<String>,
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        let problem = Self::new(codes::INVALID, invalid.to_string());
        match invalid.hint {
            Some(hint) => problem.with_hint(hint),
            None => problem,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    processes: Vec<Definition>,
}

/// Reads the definitions of a document, by name.
///
/// # Errors
/// Too large, not TOML, not of this form, or against a rule.
pub fn parse(text: &str, origin: &str) -> Result<BTreeMap<String, Definition>, Invalid> {
    if text.len() > DOCUMENT_BYTES_MAX {
        let what = format!("it has {} bytes, the limit is {DOCUMENT_BYTES_MAX}", text.len());
        return Err(whole(origin, what));
    }
    let file: File = toml::from_str(text).map_err(|error| {
        let error = ManifestError::from_toml(text, origin, &error);
        Invalid {
            origin: origin.to_owned(),
            place: error.place(),
            what: error.what().to_owned(),
            hint: error.hint().map(str::to_owned),
        }
    })?;
    if file.processes.len() > DEFINITIONS_MAX {
        let what = format!("{} definitions, the limit is {DEFINITIONS_MAX}", file.processes.len());
        return Err(whole(origin, what));
    }
    let mut definitions = BTreeMap::new();
    let mut instances = 0_usize;
    for (index, definition) in file.processes.into_iter().enumerate() {
        let at = |broken: Broken| placed(text, origin, index, broken);
        rules::check(&definition).map_err(at)?;
        instances = instances.saturating_add(definition.instances.unwrap_or(1) as usize);
        if instances > INSTANCES_TOTAL_MAX {
            let what = format!("more than {INSTANCES_TOTAL_MAX} instances of all processes together");
            return Err(at(rule(&["instances"], what, None)));
        }
        let name = definition.name.clone();
        if definitions.insert(name.clone(), definition).is_some() {
            let hint = "each process has a name of its own; for several that are alike set `instances`";
            return Err(at(rule(
                &["name"],
                format!("there is a process `{name}` already"),
                Some(hint),
            )));
        }
    }
    Ok(definitions)
}

fn rule(path: &[&'static str], what: String, hint: Option<&str>) -> Broken {
    Broken {
        path: path.to_vec(),
        what,
        hint: hint.map(str::to_owned),
    }
}

fn whole(origin: &str, what: String) -> Invalid {
    Invalid {
        origin: origin.to_owned(),
        place: None,
        what,
        hint: None,
    }
}

fn placed(text: &str, origin: &str, index: usize, broken: Broken) -> Invalid {
    Invalid {
        origin: origin.to_owned(),
        place: locate(text, index, &broken.path).map(|span| line_and_column(text, span.start)),
        what: format!("{}: {}", broken.path.join("."), broken.what),
        hint: broken.hint,
    }
}

/// Where a key of a definition is; or the innermost table around it that is written down.
fn locate(text: &str, index: usize, path: &[&str]) -> Option<Range<usize>> {
    let document = DeTable::parse(text).ok()?;
    let (_, list) = document
        .get_ref()
        .iter()
        .find(|(name, _)| name.get_ref() == PROCESSES)?;
    let DeValue::Array(list) = list.get_ref() else {
        return None;
    };
    let definition = list.get(index)?;
    let mut found = definition.span();
    let DeValue::Table(mut table) = definition.get_ref().clone() else {
        return Some(found);
    };
    for key in path {
        let Some((name, value)) = table.iter().find(|(name, _)| name.get_ref() == key) else {
            break;
        };
        found = Spanned::span(name);
        let DeValue::Table(inner) = value.get_ref().clone() else {
            break;
        };
        table = inner;
    }
    Some(found)
}

fn line_and_column(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(byte)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

/// A document that is changed.
#[derive(Debug)]
pub struct Editing {
    document: DocumentMut,
}

impl Editing {
    /// Begins with what there is; nothing is an empty document.
    ///
    /// # Errors
    /// Not TOML.
    pub fn new(text: Option<&str>) -> Result<Self, Invalid> {
        let document = text.unwrap_or_default().parse::<DocumentMut>();
        let document = document.map_err(|error| whole(NAME, error.message().to_owned()))?;
        Ok(Self { document })
    }

    /// The tables of a document that was applied, by name, as they were written there.
    ///
    /// # Errors
    /// Not TOML.
    pub fn tables(text: &str) -> Result<Vec<(String, Table)>, Invalid> {
        let mut editing = Self::new(Some(text))?;
        let tables = editing.list().iter().cloned();
        Ok(tables
            .filter_map(|mut table| {
                unplace(&mut table);
                Some((name_of(&table)?.to_owned(), table))
            })
            .collect())
    }

    /// A definition as a table.
    ///
    /// # Errors
    /// It has no form in TOML.
    pub fn table(definition: &Definition) -> Result<Table, Invalid> {
        match toml_edit::ser::to_document(definition) {
            Ok(mut document) => {
                let mut table = std::mem::take(document.as_table_mut());
                table.decor_mut().set_prefix("\n");
                unplace(&mut table);
                Ok(table)
            }
            Err(error) => Err(whole(NAME, error.to_string())),
        }
    }

    /// Puts a definition into the place of the one of this name, or at the end.
    pub fn put(&mut self, name: &str, table: Table) {
        let list = self.list();
        let at = list.iter().position(|old| name_of(old) == Some(name));
        match at.and_then(|at| list.get_mut(at)) {
            Some(old) => merge(old, &table),
            None => list.push(table),
        }
    }

    /// Removes a definition, and the comment right above it. What stands above that, parted by an empty line, is about the document,
    /// and stays.
    pub fn remove(&mut self, name: &str) {
        let first = self.list().iter().next();
        let above = first.filter(|table| name_of(table) == Some(name)).and_then(above);
        self.list().retain(|table| name_of(table) != Some(name));
        let Some(above) = above else { return };
        if let Some(next) = self.list().iter_mut().next() {
            let own = next.decor().prefix().and_then(|own| own.as_str()).unwrap_or_default();
            let own = own.trim_start_matches('\n').to_owned();
            next.decor_mut().set_prefix(above + &own);
            return;
        }
        self.document.set_trailing(above);
    }

    /// The document's text.
    pub fn text(&self) -> String {
        self.document.to_string()
    }

    /// The definitions, which become an array of tables if they were written as values.
    fn list(&mut self) -> &mut ArrayOfTables {
        let item = self.document.entry(PROCESSES).or_insert(Item::None);
        if !item.is_array_of_tables() {
            let made = std::mem::take(item).into_array_of_tables();
            *item = Item::ArrayOfTables(made.unwrap_or_default());
        }
        match item {
            Item::ArrayOfTables(list) => list,
            // It was made one right above.
            _ => unreachable!("an array of tables"),
        }
    }
}

/// What stands above a table and its own comment, with the empty line between them.
fn above(table: &Table) -> Option<String> {
    let prefix = table.decor().prefix()?.as_str()?;
    let end = prefix.trim_end_matches(' ').rfind("\n\n")? + 2;
    let above = &prefix[..end];
    (!above.trim().is_empty()).then(|| above.to_owned())
}

fn name_of(table: &Table) -> Option<&str> {
    table.get("name")?.as_str()
}

/// Forgets where in its document a table was, so that it comes after what is there.
fn unplace(table: &mut Table) {
    table.set_position(None);
    for (_, item) in table.iter_mut() {
        match item {
            Item::Table(inner) => unplace(inner),
            Item::ArrayOfTables(list) => list.iter_mut().for_each(unplace),
            Item::None | Item::Value(_) => {}
        }
    }
}

/// Makes `old` say what `new` says, and leaves what says so already as it is written.
fn merge(old: &mut dyn TableLike, new: &dyn TableLike) {
    let gone: Vec<String> = old
        .iter()
        .filter(|(key, _)| !new.contains_key(key))
        .map(|(key, _)| key.to_owned())
        .collect();
    for key in gone {
        old.remove(&key);
    }
    for (key, wanted) in new.iter() {
        let Some(there) = old.get_mut(key) else {
            old.insert(key, wanted.clone());
            continue;
        };
        if bare(there) == bare(wanted) {
            continue;
        }
        if let (Some(inner), Some(wanted)) = (there.as_table_like_mut(), wanted.as_table_like()) {
            merge(inner, wanted);
        } else if let (Item::Value(there), Item::Value(wanted)) = (&mut *there, wanted) {
            // What stands around the value, such as a comment behind it, is about the key.
            let around = there.decor().clone();
            *there = wanted.clone();
            *there.decor_mut() = around;
        } else {
            *there = wanted.clone();
        }
    }
}

/// An item without what stands around it.
fn bare(item: &Item) -> String {
    match item {
        Item::Value(value) => value.clone().decorated("", "").to_string(),
        other => other.to_string(),
    }
}
