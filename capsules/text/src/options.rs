//! How the text should look.

use astrid_sdk::body;

use crate::error::TextError;
use crate::limits::{WIDTH_MAX, WIDTH_MIN};

/// What becomes of links.
#[body]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "lowercase")]
pub enum Links {
    /// The target follows the text in parentheses.
    #[default]
    Inline,
    /// A number follows the text, and the targets are listed at the end.
    Footnote,
    /// Only the text stays.
    Omit,
}

/// What becomes of tables.
#[body]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "lowercase")]
pub enum Tables {
    /// Aligned columns.
    #[default]
    Grid,
    /// One line a row, cells separated by tabs.
    Plain,
    /// Left out.
    Omit,
}

/// How the text should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Columns a line may have; 0 leaves each paragraph on one line.
    pub width: usize,
    /// What becomes of links.
    pub links: Links,
    /// What becomes of tables.
    pub tables: Tables,
}

impl Options {
    /// Sets the line width.
    ///
    /// # Errors
    /// `invalid` when it is neither 0 nor within the limits.
    pub fn set_width(&mut self, width: u32) -> Result<(), TextError> {
        let width = width as usize;
        if width != 0 && !(WIDTH_MIN..=WIDTH_MAX).contains(&width) {
            return Err(TextError::Invalid(format!(
                "width {width} is out of range: 0 for no wrapping, or {WIDTH_MIN} to {WIDTH_MAX} columns"
            )));
        }
        self.width = width;
        Ok(())
    }

    /// Sets the option of this name from text, as a media type parameter gives it.
    ///
    /// # Errors
    /// `invalid` naming the option, what was given and what is possible.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), TextError> {
        match name {
            "width" => match value.parse() {
                Ok(width) => self.set_width(width),
                Err(_) => Err(TextError::Invalid(format!("width is not a number: {value:?}"))),
            },
            "links" => {
                self.links = match value {
                    "inline" => Links::Inline,
                    "footnote" => Links::Footnote,
                    "omit" => Links::Omit,
                    _ => return Err(unknown_value(name, value, "inline, footnote, omit")),
                };
                Ok(())
            }
            "tables" => {
                self.tables = match value {
                    "grid" => Tables::Grid,
                    "plain" => Tables::Plain,
                    "omit" => Tables::Omit,
                    _ => return Err(unknown_value(name, value, "grid, plain, omit")),
                };
                Ok(())
            }
            _ => Err(TextError::Invalid(format!(
                "there is no option {name:?}: width, links, tables"
            ))),
        }
    }
}

fn unknown_value(name: &str, value: &str, possible: &str) -> TextError {
    TextError::Invalid(format!("{name} cannot be {value:?}: {possible}"))
}
