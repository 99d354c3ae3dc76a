//! The part of a [`Writer`] that tables concern: when they are collected, and when they turn out to be page layout.

use super::table::Table;
use super::{Gap, TableState, Writer};
use crate::error::TextError;
use crate::limits;
use crate::options::Tables;

impl Writer {
    /// A table starts. One within another makes the outer one page layout.
    pub fn table_start(&mut self) {
        if self.in_cell {
            self.flow();
        }
        self.block(Gap::Blank);
        if self.frames.len() + self.tables.len() >= limits::NESTING {
            self.fail(TextError::TooDeep {
                what: "lists, quotes and tables",
                limit: limits::NESTING,
            });
            return;
        }
        self.tables.push(TableState::Collected(Table::default()));
    }

    /// A row starts.
    pub fn row_start(&mut self) {
        self.cell_end();
        match self.tables.last_mut() {
            Some(TableState::Collected(table)) => table.row(),
            Some(TableState::Flowing) => self.block(Gap::Line),
            None => {}
        }
    }

    /// A cell starts, ending the one that is open.
    pub fn cell_start(&mut self, is_header: bool) {
        self.cell_end();
        // What stands in a table outside of its cells, such as its caption, comes before it.
        self.block(Gap::Line);
        match self.tables.last_mut() {
            Some(TableState::Collected(table)) => {
                if table.cells() >= limits::TABLE_CELLS {
                    self.fail(TextError::too_large("a table", limits::TABLE_CELLS, "cells"));
                    return;
                }
                table.cell(is_header);
                self.in_cell = true;
            }
            Some(TableState::Flowing) | None => {}
        }
    }

    /// The open cell ends.
    pub fn cell_end(&mut self) {
        if !self.in_cell {
            return;
        }
        self.link_end();
        self.in_cell = false;
        if let Some(TableState::Collected(table)) = self.tables.last_mut() {
            table.text(self.inline.trim());
        }
        self.inline.clear();
    }

    /// The innermost table ends.
    pub fn table_end(&mut self) {
        self.cell_end();
        if let Some(state) = self.tables.pop() {
            self.end_collected(state);
        }
        self.block(Gap::Blank);
    }

    pub(super) fn end_collected(&mut self, state: TableState) {
        self.in_cell = false;
        let TableState::Collected(table) = state else { return };
        self.block(Gap::Blank);
        if table.is_layout() {
            self.paragraphs(&table);
            return;
        }
        let columns = self.columns();
        match self.options.tables {
            Tables::Omit => {}
            Tables::Plain => table.write_plain(|line| self.line(line)),
            Tables::Grid => {
                if !table.write_grid(columns, |line| self.line(line)) {
                    table.write_plain(|line| self.line(line));
                }
            }
        }
        self.block(Gap::Blank);
    }

    /// The table whose cell is open is page layout: what was collected is written, and its cells become paragraphs.
    pub(super) fn flow(&mut self) {
        let open = std::mem::take(&mut self.inline);
        self.in_cell = false;
        if let Some(TableState::Collected(table)) = self
            .tables
            .last_mut()
            .map(|state| std::mem::replace(state, TableState::Flowing))
        {
            self.paragraphs(&table);
        }
        if let Some(link) = &mut self.link {
            link.start = 0;
        }
        self.inline = open;
        self.flush();
    }

    fn paragraphs(&mut self, table: &Table) {
        for text in table.texts().filter(|text| !text.is_empty()) {
            self.inline.push_str(text);
            self.block(Gap::Line);
        }
    }
}
