//! Interprets the content of pages as far as text depends on it.

use std::collections::HashMap;
use std::rc::Rc;

use hayro_syntax::content::{Instruction, UntypedIter};
use hayro_syntax::object::{Array, Dict, Name, Object, Stream};
use hayro_syntax::page::Resources;

use super::font::{self, Font};
use super::lines::{Lines, Place};
use super::stream::unpack;
use crate::error::TextError;
use crate::limits;

/// A matrix as PDF writes it: `[a b c d e f]`.
type Matrix = [f64; 6];

const IDENTITY: Matrix = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0];

/// First `a`, then `b`.
fn concat(a: Matrix, b: Matrix) -> Matrix {
    [
        a[0] * b[0] + a[1] * b[2],
        a[0] * b[1] + a[1] * b[3],
        a[2] * b[0] + a[3] * b[2],
        a[2] * b[1] + a[3] * b[3],
        a[4] * b[0] + a[5] * b[2] + b[4],
        a[4] * b[1] + a[5] * b[3] + b[5],
    ]
}

/// What all pages share: what they may cost together, and the fonts.
pub(super) struct Session {
    unpacked: usize,
    operators: usize,
    fonts_read: usize,
    forms_drawn: usize,
    /// By where its dictionary is: that is the same for every page that uses it.
    fonts: HashMap<(usize, usize), Rc<Font>>,
}

impl Session {
    pub(super) fn new() -> Self {
        Self {
            unpacked: 0,
            operators: 0,
            fonts_read: 0,
            forms_drawn: 0,
            fonts: HashMap::new(),
        }
    }

    /// Unpacks a stream of at most so many bytes, counting them.
    fn unpack<'a>(&mut self, stream: &Stream<'a>, limit: usize, what: &str) -> Result<Vec<u8>, TextError> {
        let data = unpack(stream, limit, what)?.into_owned();
        self.unpacked += data.len();
        if self.unpacked > limits::PDF_UNPACKED_BYTES {
            return Err(TextError::too_large(
                format!("the content up to {what}"),
                limits::PDF_UNPACKED_BYTES,
                "bytes unpacked",
            ));
        }
        Ok(data)
    }

    fn font(&mut self, dict: &Dict<'_>, what: &str) -> Result<Rc<Font>, TextError> {
        let key = (dict.data().as_ptr() as usize, dict.data().len());
        if let Some(font) = self.fonts.get(&key) {
            return Ok(font.clone());
        }
        self.fonts_read += 1;
        if self.fonts_read > limits::PDF_FONT_READS {
            return Err(TextError::too_large(
                format!("the content up to {what}"),
                limits::PDF_FONT_READS,
                "fonts",
            ));
        }
        let map = match font::to_unicode(dict) {
            Some(stream) => match self.unpack(&stream, limits::PDF_CMAP_BYTES, &format!("a character map of {what}")) {
                Ok(map) => Some(map),
                Err(error @ TextError::TooLarge { .. }) => return Err(error),
                Err(_) => None,
            },
            None => None,
        };
        let font = Rc::new(Font::read(dict, map.as_deref()));
        if self.fonts.len() >= limits::PDF_FONTS {
            self.fonts.clear();
        }
        self.fonts.insert(key, font.clone());
        Ok(font)
    }
}

/// What `q` saves.
#[derive(Clone)]
struct State {
    ctm: Matrix,
    font: Option<Rc<Font>>,
    size: f64,
    character_space: f64,
    word_space: f64,
    scale: f64,
    leading: f64,
    rise: f64,
}

/// Interprets one page.
pub(super) struct Interpreter<'s> {
    session: &'s mut Session,
    /// `page 3`, for errors.
    page: String,
    lines: Lines,
    state: State,
    saved: Vec<State>,
    text: Matrix,
    line: Matrix,
    /// The forms that are being drawn.
    forms: Vec<(usize, usize)>,
}

impl<'s> Interpreter<'s> {
    pub(super) fn new(session: &'s mut Session, page: String) -> Self {
        let state = State {
            ctm: IDENTITY,
            font: None,
            size: 0.0,
            character_space: 0.0,
            word_space: 0.0,
            scale: 1.0,
            leading: 0.0,
            rise: 0.0,
        };
        Self {
            session,
            page,
            lines: Lines::default(),
            state,
            saved: Vec::new(),
            text: IDENTITY,
            line: IDENTITY,
            forms: Vec::new(),
        }
    }

    /// The text of a page with this dictionary and these resources.
    pub(super) fn page(mut self, page: &Dict<'_>, resources: &Resources<'_>) -> Result<String, TextError> {
        let mut content = Vec::new();
        let what = format!("the content of {}", self.page);
        match page.get::<Object<'_>>("Contents") {
            Some(Object::Stream(stream)) => content = self.session.unpack(&stream, limits::PDF_CONTENT_BYTES, &what)?,
            Some(Object::Array(streams)) => {
                for stream in streams.iter::<Stream<'_>>() {
                    let room = limits::PDF_CONTENT_BYTES - content.len();
                    content.extend(self.session.unpack(&stream, room, &what)?);
                    content.push(b' ');
                    content.truncate(limits::PDF_CONTENT_BYTES);
                }
            }
            _ => {}
        }
        self.run(&content, &resources.fonts, &resources.x_objects)?;
        Ok(self.lines.finish())
    }

    fn run(&mut self, content: &[u8], fonts: &Dict<'_>, forms: &Dict<'_>) -> Result<(), TextError> {
        let saved = self.saved.len();
        // By their names here: a font is chosen often, and its dictionary is read anew each time it is asked for.
        let mut known: HashMap<Vec<u8>, Option<Rc<Font>>> = HashMap::new();
        let mut instructions = UntypedIter::new(content);
        while let Some(instruction) = instructions.next() {
            self.session.operators += 1;
            if self.session.operators > limits::PDF_OPERATORS {
                return Err(TextError::too_large(
                    format!("the content up to {}", self.page),
                    limits::PDF_OPERATORS,
                    "instructions",
                ));
            }
            match &**instruction.operator {
                b"Tf" => {
                    if let Some(Object::Name(name)) = instruction.operands().next() {
                        self.state.font = match known.get(&**name) {
                            Some(font) => font.clone(),
                            None => {
                                let dict = fonts.get::<Dict<'_>>(&**name);
                                let font = dict.map(|dict| self.session.font(&dict, &self.page)).transpose()?;
                                if known.len() < limits::PDF_FONTS {
                                    known.insert(name.to_vec(), font.clone());
                                }
                                font
                            }
                        };
                    }
                    self.state.size = numbers::<1>(instruction.operands().skip(1))[0];
                }
                b"Do" => {
                    if let Some(Object::Name(name)) = instruction.operands().next() {
                        self.form(name, fonts, forms)?;
                    }
                }
                b"Q" if self.saved.len() > saved => self.restore(),
                operator => self.instruction(operator, &instruction)?,
            }
        }
        while self.saved.len() > saved {
            self.restore();
        }
        Ok(())
    }

    fn instruction(&mut self, operator: &[u8], instruction: &Instruction<'_, '_>) -> Result<(), TextError> {
        match operator {
            b"q" => {
                if self.saved.len() >= limits::PDF_STATES {
                    return Err(TextError::TooDeep {
                        what: "graphics states",
                        limit: limits::PDF_STATES,
                    });
                }
                self.saved.push(self.state.clone());
            }
            b"cm" => self.state.ctm = concat(numbers(instruction.operands()), self.state.ctm),
            b"BT" => (self.text, self.line) = (IDENTITY, IDENTITY),
            b"Tc" => self.state.character_space = number(instruction),
            b"Tw" => self.state.word_space = number(instruction),
            b"Tz" => self.state.scale = number(instruction) / 100.0,
            b"TL" => self.state.leading = number(instruction),
            b"Ts" => self.state.rise = number(instruction),
            b"Td" => self.next_line(numbers(instruction.operands())),
            b"TD" => {
                let offset: [f64; 2] = numbers(instruction.operands());
                self.state.leading = -offset[1];
                self.next_line(offset);
            }
            b"Tm" => {
                self.line = numbers(instruction.operands());
                self.text = self.line;
            }
            b"T*" => self.next_line([0.0, -self.state.leading]),
            b"Tj" => self.show_first(instruction),
            b"'" => {
                self.next_line([0.0, -self.state.leading]);
                self.show_first(instruction);
            }
            b"\"" => {
                [self.state.word_space, self.state.character_space] = numbers(instruction.operands());
                self.next_line([0.0, -self.state.leading]);
                self.show_first(instruction);
            }
            b"TJ" => {
                if let Some(Object::Array(pieces)) = instruction.operands().next() {
                    self.show_all(pieces);
                }
            }
            _ => {}
        }
        if self.lines.len() > limits::OUTPUT_BYTES {
            return Err(TextError::output());
        }
        Ok(())
    }

    fn restore(&mut self) {
        if let Some(state) = self.saved.pop() {
            self.state = state;
        }
    }

    fn next_line(&mut self, offset: [f64; 2]) {
        self.line = concat([1.0, 0.0, 0.0, 1.0, offset[0], offset[1]], self.line);
        self.text = self.line;
    }

    fn show_first(&mut self, instruction: &Instruction<'_, '_>) {
        if let Some(Object::String(string)) = instruction.operands().last() {
            self.show(string);
        }
    }

    fn show_all(&mut self, pieces: &Array<'_>) {
        for piece in pieces.iter::<Object<'_>>() {
            match piece {
                Object::String(string) => self.show(&string),
                Object::Number(number) => self.advance(-number.as_f64() / 1000.0 * self.state.size * self.state.scale),
                _ => {}
            }
        }
    }

    /// Moves along the baseline.
    fn advance(&mut self, distance: f64) {
        self.text[4] += distance * self.text[0];
        self.text[5] += distance * self.text[1];
    }

    fn show(&mut self, string: &[u8]) {
        let Some(font) = self.state.font.clone() else { return };
        let (start, direction, size) = self.place();
        let mut text = String::with_capacity(string.len());
        let mut distance = 0.0;
        font.decode(string, |glyph| {
            // Past the limit it is refused; until then it must not take more memory, either.
            if text.len() <= limits::OUTPUT_BYTES {
                text.push_str(glyph.text);
            }
            let word_space = if glyph.is_space { self.state.word_space } else { 0.0 };
            distance += f64::from(glyph.width) / 1000.0 * self.state.size + self.state.character_space + word_space;
        });
        self.advance(distance * self.state.scale);
        let (end, _, _) = self.place();
        if !text.is_empty() {
            self.lines.add(
                &text,
                Place {
                    start,
                    end,
                    direction,
                    size,
                },
            );
        }
    }

    /// Where text is now on the page, the direction of its baseline, and its size.
    fn place(&self) -> ((f64, f64), (f64, f64), f64) {
        let matrix = concat(self.text, self.state.ctm);
        let x = matrix[4] + self.state.rise * matrix[2];
        let y = matrix[5] + self.state.rise * matrix[3];
        let length = matrix[0].hypot(matrix[1]);
        // A font size may be negative, which turns the baseline around.
        let sign = if self.state.size * self.state.scale < 0.0 {
            -1.0
        } else {
            1.0
        };
        let direction = if length > 0.0 {
            (sign * matrix[0] / length, sign * matrix[1] / length)
        } else {
            (1.0, 0.0)
        };
        let size = (self.state.size * matrix[2].hypot(matrix[3])).abs();
        ((x, y), direction, if size.is_finite() { size } else { 0.0 })
    }

    /// Draws a form; images are passed over.
    fn form(&mut self, name: &Name<'_>, fonts: &Dict<'_>, forms: &Dict<'_>) -> Result<(), TextError> {
        let Some(form) = forms.get::<Stream<'_>>(&**name) else {
            return Ok(());
        };
        if form.dict().get::<Name<'_>>("Subtype").as_deref() != Some(b"Form") {
            return Ok(());
        }
        let key = (form.dict().data().as_ptr() as usize, form.dict().data().len());
        if self.forms.contains(&key) {
            return Err(TextError::Malformed(format!("a form on {} draws itself", self.page)));
        }
        if self.forms.len() >= limits::PDF_FORM_DEPTH {
            return Err(TextError::TooDeep {
                what: "forms",
                limit: limits::PDF_FORM_DEPTH,
            });
        }
        self.session.forms_drawn += 1;
        if self.session.forms_drawn > limits::PDF_FORMS {
            let what = format!("the content up to {}", self.page);
            return Err(TextError::too_large(what, limits::PDF_FORMS, "forms"));
        }
        let what = format!("a form on {}", self.page);
        let content = match self.session.unpack(&form, limits::PDF_CONTENT_BYTES, &what) {
            Err(TextError::Unsupported(_) | TextError::Malformed(_)) => return Ok(()),
            unpacked => unpacked?,
        };
        let outside = (self.state.clone(), self.text, self.line);
        if let Some(matrix) = form.dict().get::<Array<'_>>("Matrix") {
            let matrix: Vec<Object<'_>> = matrix.iter::<Object<'_>>().take(6).collect();
            self.state.ctm = concat(numbers(matrix.iter()), self.state.ctm);
        }
        self.forms.push(key);
        match form.dict().get::<Dict<'_>>("Resources").map(Resources::new) {
            Some(own) => self.run(&content, &own.fonts, &own.x_objects)?,
            None => self.run(&content, fonts, forms)?,
        }
        self.forms.pop();
        (self.state, self.text, self.line) = outside;
        Ok(())
    }
}

/// The first operands, as numbers; 0 for what is missing, not a number or not finite.
fn numbers<'o, const N: usize>(operands: impl Iterator<Item = &'o Object<'o>>) -> [f64; N] {
    let mut numbers = [0.0; N];
    for (slot, operand) in numbers.iter_mut().zip(operands) {
        if let Object::Number(number) = operand
            && number.as_f64().is_finite()
        {
            *slot = number.as_f64();
        }
    }
    numbers
}

fn number(instruction: &Instruction<'_, '_>) -> f64 {
    numbers::<1>(instruction.operands())[0]
}
