//! What is searched for: a regular expression whose work is counted while it is done.
//!
//! A guest cannot see how much fuel it has left, and some expressions cost a thousand times more on some texts than on others. So the engine
//! is the lazy automaton of `regex-automata`, which shows how many states it had to make; a line that it cannot decide (word boundaries beside
//! letters that are not ASCII) goes to the simulation, whose cost is known beforehand. Deliberately absent: look-around and references back,
//! which no engine does in bounded time.

use regex_automata::hybrid::{dfa, regex};
use regex_automata::nfa::thompson::{self, pikevm};
use regex_automata::util::syntax;
use regex_automata::{Input, Span};

use crate::error::FilesError;
use crate::limits;

/// Bytes of the states that are kept; when there are more, they are made anew.
const CACHE_BYTES: usize = 4 << 20;

/// About what a byte, a line, and a byte of new states cost, in fuel.
const BYTE_COST: u64 = 12;
const LINE_COST: u64 = 400;
const STATE_BYTE_COST: u64 = 64;

/// About what one state of the simulation costs for one byte.
const SIMULATION_COST: u64 = 40;

/// How letters are compared.
#[astrid_sdk::body]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Case {
    /// As they are.
    #[default]
    Sensitive,
    /// Large and small ones are the same.
    Insensitive,
    /// As they are if there is a large one in the pattern.
    Smart,
}

/// A compiled pattern, and what it has cost.
pub struct Pattern {
    regex: regex::Regex,
    cache: regex::Cache,
    simulation: pikevm::PikeVM,
    simulation_cache: pikevm::Cache,
    states: u64,
    /// About the fuel that was used.
    work: u64,
    /// Bytes of states that were made before.
    made: u64,
}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pattern")
            .field("work", &self.work)
            .finish_non_exhaustive()
    }
}

impl Pattern {
    /// Compiles a pattern, for lines without their ends.
    ///
    /// # Errors
    /// It cannot be understood, is too large, or wants what no line has.
    pub fn new(pattern: &str, literal: bool, case: Case) -> Result<Self, FilesError> {
        if pattern.is_empty() || pattern.len() > limits::PATTERN_BYTES {
            let limit = limits::PATTERN_BYTES;
            return Err(FilesError::Pattern(format!("it has 1 to {limit} bytes")));
        }
        if pattern.contains('\n') || (!literal && wants_line_feed(pattern)) {
            return Err(FilesError::Pattern(
                "it is searched for in each line, and no line has a line feed".to_owned(),
            ));
        }
        let written = match literal {
            true => regex_syntax::escape(pattern),
            false => pattern.to_owned(),
        };
        let insensitive = match case {
            Case::Sensitive => false,
            Case::Insensitive => true,
            Case::Smart => !pattern.chars().any(char::is_uppercase),
        };
        let syntax = syntax::Config::new()
            .utf8(false)
            .case_insensitive(insensitive)
            .nest_limit(100);
        let limits = thompson::Config::new()
            .utf8(false)
            .nfa_size_limit(Some(limits::PATTERN_COMPILED_BYTES));
        let simulation = pikevm::PikeVM::builder()
            .syntax(syntax)
            .thompson(limits.clone())
            .build(&written)
            .map_err(|error| FilesError::Pattern(words(&error)))?;
        let automaton = dfa::Config::new()
            .unicode_word_boundary(true)
            .cache_capacity(CACHE_BYTES)
            .skip_cache_capacity_check(true);
        let regex = regex::Regex::builder()
            .syntax(syntax)
            .thompson(limits)
            .dfa(automaton)
            .build(&written)
            .map_err(|error| FilesError::Pattern(words(&error)))?;
        Ok(Self {
            cache: regex.create_cache(),
            simulation_cache: simulation.create_cache(),
            states: simulation.get_nfa().states().len() as u64,
            regex,
            simulation,
            work: 0,
            made: 0,
        })
    }

    /// About the fuel that was used.
    pub fn work(&self) -> u64 {
        self.work
    }

    /// How many bytes of a line can be searched, so that no line alone costs more than a search may.
    pub fn line_bytes_max(&self) -> usize {
        let affordable = limits::SEARCH_WORK / (self.states * SIMULATION_COST);
        usize::try_from(affordable)
            .unwrap_or(usize::MAX)
            .min(limits::SEARCHED_LINE_BYTES)
    }

    /// Where a line of at most so many bytes matches first.
    pub fn find(&mut self, line: &[u8]) -> Option<Span> {
        self.work += LINE_COST + line.len() as u64 * BYTE_COST;
        let found = self.regex.try_search(&mut self.cache, &Input::new(line));
        self.count_states();
        match found {
            Ok(found) => found.map(|found| found.span()),
            Err(_) => {
                self.work += (line.len() as u64 + 1) * self.states * SIMULATION_COST;
                let found = self.simulation.find(&mut self.simulation_cache, line);
                found.map(|found| found.span())
            }
        }
    }

    /// Counts the states that were made since.
    fn count_states(&mut self) {
        let (forward, reverse) = self.cache.as_parts();
        let made = |cache: &dfa::Cache| (cache.clear_count() * CACHE_BYTES + cache.memory_usage()) as u64;
        let made = made(forward) + made(reverse);
        self.work += made.saturating_sub(self.made) * STATE_BYTE_COST;
        self.made = self.made.max(made);
    }
}

/// Whether the pattern says `\n`.
fn wants_line_feed(pattern: &str) -> bool {
    let mut escaped = false;
    pattern.chars().any(|character| {
        let wants = escaped && character == 'n';
        escaped = !escaped && character == '\\';
        wants
    })
}

/// The error and its causes, in one line.
fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}
