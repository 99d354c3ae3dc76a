//! From placed pieces of text to lines.
//!
//! A PDF has no lines and often no spaces: pieces of text are put at places. They are taken in the order of the file, which for
//! nearly all writers is the order of reading, also in columns; a step across the line starts a new one, a gap along it is
//! a space. What separates paragraphs is known at the end of a page. Text in any direction is treated alike, relative to its own baseline.

/// A gap along the line that is a space, in font sizes. Justified text goes down to 0.2; kerning reaches 0.1.
const SPACE_GAP: f64 = 0.17;

/// A gap along the line that separates columns of a table, in font sizes.
const COLUMN_GAP: f64 = 2.0;

/// A step across the line that starts a new one, in font sizes. Exponents rise by about 0.4.
const LINE_STEP: f64 = 0.5;

/// A step across the line separates paragraphs when it is so much more than the page's usual one.
const PARAGRAPH_STEP: f32 = 1.3;

/// The usual step is believed to be in this range, in font sizes: single lines to double ones.
const USUAL_STEPS: (f32, f32) = (1.1, 2.0);

/// A step back along the line, in font sizes, after which text is not the same line's.
const BACK_STEP: f64 = 2.0;

/// Where a piece of text is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Start of the baseline.
    pub(super) start: (f64, f64),
    /// End of the baseline.
    pub(super) end: (f64, f64),
    /// Direction of the baseline, of length 1.
    pub(super) direction: (f64, f64),
    /// Font size on the page.
    pub(super) size: f64,
}

/// The lines of one page.
#[derive(Debug, Default)]
pub(super) struct Lines {
    text: String,
    last: Option<Place>,
    breaks: Vec<Break>,
}

/// Between two lines.
#[derive(Debug, Clone, Copy)]
struct Break {
    /// Where the second starts in the text.
    at: usize,
    /// How far it is from the first, in font sizes; infinite when it is elsewhere.
    step: f32,
}

impl Lines {
    /// Adds a piece of text.
    pub(super) fn add(&mut self, text: &str, place: Place) {
        // Spaces at the start of a line are its indentation, which is not kept.
        if let Some(last) = self.last {
            self.separate(last, place);
        }
        self.last = Some(place);
        for c in text.chars() {
            match c {
                '\u{fb00}' => self.text.push_str("ff"),
                '\u{fb01}' => self.text.push_str("fi"),
                '\u{fb02}' => self.text.push_str("fl"),
                '\u{fb03}' => self.text.push_str("ffi"),
                '\u{fb04}' => self.text.push_str("ffl"),
                '\u{ad}' => self.text.push('-'),
                ' ' | '\u{a0}' | '\t' | '\n' | '\r' => self.text.push(' '),
                c if c.is_control() => {}
                c => self.text.push(c),
            }
        }
    }

    fn separate(&mut self, last: Place, place: Place) {
        let size = last.size.max(place.size);
        let step = (place.start.0 - last.end.0, place.start.1 - last.end.1);
        let along = step.0 * place.direction.0 + step.1 * place.direction.1;
        let across = (step.0 * place.direction.1 - step.1 * place.direction.0).abs();
        let turned = last.direction.0 * place.direction.0 + last.direction.1 * place.direction.1 < 0.9;
        if turned || across > LINE_STEP * size || along < -BACK_STEP * size {
            let is_elsewhere = turned || across <= LINE_STEP * size;
            self.end_line(if is_elsewhere {
                f32::INFINITY
            } else {
                (across / size) as f32
            });
        } else if along > COLUMN_GAP * size {
            self.trim();
            self.text.push_str("  ");
        } else if along > SPACE_GAP * size && !self.text.ends_with([' ', '\n']) {
            self.text.push(' ');
        }
    }

    fn end_line(&mut self, step: f32) {
        self.trim();
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push('\n');
            self.breaks.push(Break {
                at: self.text.len(),
                step,
            });
        }
    }

    fn trim(&mut self) {
        let kept = self.text.trim_end_matches(' ').len();
        self.text.truncate(kept);
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// The text, in lines without white space at their ends, and an empty line between paragraphs.
    pub(super) fn finish(mut self) -> String {
        self.end_line(0.0);
        let mut steps: Vec<f32> = self
            .breaks
            .iter()
            .map(|line| line.step)
            .filter(|step| step.is_normal())
            .collect();
        // Within paragraphs lines are closest, and most pages are paragraphs: a quarter of the steps is enough to see it.
        let quarter = steps.len() / 4;
        let usual = if steps.is_empty() {
            USUAL_STEPS.0
        } else {
            *steps.select_nth_unstable_by(quarter, f32::total_cmp).1
        };
        let paragraph = usual.clamp(USUAL_STEPS.0, USUAL_STEPS.1) * PARAGRAPH_STEP;
        let mut text = String::with_capacity(self.text.len() + self.breaks.len());
        let mut start = 0;
        for line in &self.breaks {
            text.push_str(&self.text[start..line.at]);
            if line.step > paragraph && line.at < self.text.len() {
                text.push('\n');
            }
            start = line.at;
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(x: f64, y: f64, width: f64) -> Place {
        Place {
            start: (x, y),
            end: (x + width, y),
            direction: (1.0, 0.0),
            size: 10.0,
        }
    }

    #[test]
    fn gaps_become_spaces_and_lines() {
        let mut lines = Lines::default();
        lines.add("Hel", at(0.0, 100.0, 15.0));
        lines.add("lo", at(15.5, 100.0, 10.0));
        lines.add("world", at(28.5, 100.0, 25.0));
        lines.add(
            "2",
            Place {
                size: 7.0,
                ..at(53.5, 104.0, 4.0)
            },
        );
        lines.add("cell", at(100.0, 100.0, 20.0));
        lines.add("next", at(0.0, 88.0, 20.0));
        lines.add("far", at(0.0, 60.0, 20.0));
        assert_eq!(lines.finish(), "Hello world2  cell\nnext\n\nfar\n");
    }

    #[test]
    fn turned_text_has_lines_of_its_own() {
        let up = |x: f64, y: f64| Place {
            start: (x, y),
            end: (x, y + 10.0),
            direction: (0.0, 1.0),
            size: 10.0,
        };
        let mut lines = Lines::default();
        lines.add("page", at(0.0, 0.0, 20.0));
        lines.add("si", up(50.0, 10.0));
        lines.add("de", up(50.0, 20.0));
        lines.add("two", up(62.0, 10.0));
        assert_eq!(lines.finish(), "page\n\nside\ntwo\n");
    }
}
