//! Tables: collected cell by cell, written when they end.

use super::wrap::{display_width, wrap};
use crate::limits::{CELL_COLUMNS, COLUMN_MIN, PAD_COLUMNS, WRAP_COLUMNS};

/// Between two columns.
const SEPARATOR: &str = " | ";

/// The cells of a table, in one buffer.
#[derive(Debug, Default)]
pub(super) struct Table {
    text: String,
    cells: Vec<Cell>,
    /// Index of the first cell of each row.
    rows: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    start: u32,
    end: u32,
    is_header: bool,
}

impl Table {
    /// Starts a row.
    pub(super) fn row(&mut self) {
        if self
            .rows
            .last()
            .is_none_or(|first| (*first as usize) < self.cells.len())
        {
            self.rows.push(self.cells.len() as u32);
        }
    }

    /// Starts a cell.
    pub(super) fn cell(&mut self, is_header: bool) {
        if self.rows.is_empty() {
            self.row();
        }
        let at = self.text.len() as u32;
        self.cells.push(Cell {
            start: at,
            end: at,
            is_header,
        });
    }

    /// Gives the last cell its text.
    pub(super) fn text(&mut self, text: &str) {
        self.text.push_str(text);
        if let Some(cell) = self.cells.last_mut() {
            cell.end = self.text.len() as u32;
        }
    }

    /// How many cells there are.
    pub(super) fn cells(&self) -> usize {
        self.cells.len()
    }

    /// The texts of all cells, in document order.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.cells.iter().map(|cell| self.text_of(cell))
    }

    /// Whether this is page layout rather than data: one column, or cells that hold whole pages.
    pub(super) fn is_layout(&self) -> bool {
        self.rows().all(|row| row.len() <= 1)
            || self
                .cells
                .iter()
                .any(|cell| (cell.end - cell.start) as usize > CELL_COLUMNS)
    }

    fn text_of(&self, cell: &Cell) -> &str {
        &self.text[cell.start as usize..cell.end as usize]
    }

    fn rows(&self) -> impl Iterator<Item = &[Cell]> {
        let ends = self
            .rows
            .iter()
            .skip(1)
            .map(|first| *first as usize)
            .chain([self.cells.len()]);
        self.rows
            .iter()
            .zip(ends)
            .map(|(first, end)| &self.cells[*first as usize..end])
            .filter(|row| !row.is_empty())
    }

    /// Writes one line a row, cells separated by tabs.
    pub(super) fn write_plain(&self, mut line: impl FnMut(&str)) {
        let mut buffer = String::new();
        for row in self.rows() {
            buffer.clear();
            for (index, cell) in row.iter().enumerate() {
                if index > 0 {
                    buffer.push('\t');
                }
                buffer.extend(
                    self.text_of(cell)
                        .chars()
                        .map(|c| if matches!(c, '\n' | '\t') { ' ' } else { c }),
                );
            }
            line(buffer.trim_end_matches('\t'));
        }
    }

    /// Writes aligned columns. False, and nothing written, when they do not fit into so many columns.
    pub(super) fn write_grid(&self, columns: Option<usize>, mut line: impl FnMut(&str)) -> bool {
        let Some(widths) = self.widths(columns) else {
            return false;
        };
        let mut rule_due = self
            .rows()
            .next()
            .is_some_and(|row| row.iter().all(|cell| cell.is_header));
        let mut buffer = String::new();
        for row in self.rows() {
            if rule_due && row.iter().any(|cell| !cell.is_header) {
                rule_due = false;
                line(&rule(&widths));
            }
            self.write_row(row, &widths, columns.is_some(), &mut buffer, &mut line);
        }
        true
    }

    fn write_row(
        &self,
        row: &[Cell],
        widths: &[usize],
        wrapped: bool,
        buffer: &mut String,
        line: &mut impl FnMut(&str),
    ) {
        let mut height = 1;
        let lines: Vec<Vec<&str>> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| {
                let mut lines = Vec::new();
                wrap(self.text_of(cell), wrapped.then_some(*width), |line| lines.push(line));
                height = height.max(lines.len());
                lines
            })
            .collect();
        for index in 0..height {
            buffer.clear();
            for (column, (cell, width)) in lines.iter().zip(widths).enumerate() {
                if column > 0 {
                    buffer.push_str(SEPARATOR);
                }
                let text = cell.get(index).copied().unwrap_or_default();
                buffer.push_str(text);
                buffer.extend(std::iter::repeat_n(' ', width.saturating_sub(display_width(text))));
            }
            line(buffer);
        }
    }

    /// How wide each column becomes; `None` when they cannot all be had.
    fn widths(&self, columns: Option<usize>) -> Option<Vec<usize>> {
        let mut widths: Vec<usize> = Vec::new();
        for row in self.rows() {
            for (column, cell) in row.iter().enumerate() {
                let width = self.text_of(cell).split('\n').map(display_width).max().unwrap_or(0);
                match widths.get_mut(column) {
                    Some(present) => *present = width.max(*present),
                    None => widths.push(width),
                }
            }
        }
        let Some(columns) = columns else {
            return Some(widths.into_iter().map(|width| width.min(PAD_COLUMNS)).collect());
        };
        let room = columns.checked_sub(SEPARATOR.len() * widths.len().saturating_sub(1))?;
        for width in &mut widths {
            *width = WRAP_COLUMNS.min(*width);
        }
        if widths.iter().sum::<usize>() <= room {
            return Some(widths);
        }
        // The widest columns are cut to the largest common width that fits.
        let fits = |cap: usize| widths.iter().map(|width| *width.min(&cap)).sum::<usize>() <= room;
        let (mut low, mut high) = (COLUMN_MIN, columns);
        if !fits(low) {
            return None;
        }
        while low + 1 < high {
            let middle = low.midpoint(high);
            if fits(middle) { low = middle } else { high = middle }
        }
        Some(widths.into_iter().map(|width| width.min(low)).collect())
    }
}

fn rule(widths: &[usize]) -> String {
    let mut rule = String::new();
    for (column, width) in widths.iter().enumerate() {
        if column > 0 {
            rule.push_str("-+-");
        }
        rule.extend(std::iter::repeat_n('-', *width));
    }
    rule
}
