//! The capsule `files`: reads, writes, lists, searches and edits files (interface `files@1`).
//!
//! Reading order: [`path`] (how files are named), [`error`] (how a request is refused), `read` and `write` (one file), [`edit`] and [`diff`],
//! `walk` and `rules` (a tree), `list`, [`pattern`] and `search`. [`limits`] says what a request may cost. All of it is plain Rust over
//! [`astrid_sdk::fs`], which the fake kernel of the SDK has in memory; only this file knows that it is a capsule.
//!
//! What may be read and written is not decided here: the kernel does, by what is granted to the principal, which is nothing by default. A
//! refusal names the grant that is missing. What is written to `workspace://` changes nothing of the attached directory before the operator
//! commits it.
//!
//! Deliberately absent: state. Every request stands for itself, and a cursor says all that the next one needs.

pub mod decode;
pub mod diff;
pub mod edit;
pub mod error;
pub mod limits;
mod list;
pub mod path;
pub mod pattern;
mod read;
mod rules;
mod search;
mod walk;
mod write;

use astrid_sdk::prelude::*;

use error::FilesError;
use list::{ListDir, Listed};
use read::{BinRead, ReadBin, ReadText, TextRead};
use search::{Search, Searched};
use write::{Done, EditText, Known, MakeDir, Remove, Rename, Stat, TextEdited, WriteText, Written};

#[derive(Default)]
struct FilesCapsule;

/// The refusal, for whom the request was made.
fn told<T>(ctx: &Context, result: Result<T, FilesError>) -> Result<T, Problem> {
    result.map_err(|error| error.told_to(ctx.principal()))
}

#[capsule]
impl FilesCapsule {
    /// Reads lines of a text file (UTF-8, or UTF-16 with a mark), with the hash that `write_text` and `edit` take as `expected`.
    #[on("tool.v1.files.read_text", request = ReadText, reply = TextRead)]
    fn read_text(&self, ctx: &mut Context, request: ReadText) -> Result<TextRead, Problem> {
        let read = read::text(&ctx.fs(), &request);
        told(ctx, read)
    }

    /// Writes a whole text file, at once and atomically.
    #[on("tool.v1.files.write_text", request = WriteText, reply = Written)]
    fn write_text(&self, ctx: &mut Context, request: WriteText) -> Result<Written, Problem> {
        let written = write::text(&mut ctx.fs(), request);
        told(ctx, written)
    }

    /// Reads bytes of a file, as base64 or as they are.
    #[on("tool.v1.files.read_bin", request = ReadBin, reply = BinRead)]
    fn read_bin(&self, ctx: &mut Context, request: ReadBin) -> Result<Body, Problem> {
        let principal = ctx.principal().to_owned();
        read::binary(&ctx.fs(), &request, &principal)
    }

    /// Lists a directory, or a tree, by globs; what `.gitignore` files name is left out unless it is asked for.
    #[on("tool.v1.files.list_dir", request = ListDir, reply = Listed)]
    fn list_dir(&self, ctx: &mut Context, request: ListDir) -> Result<Listed, Problem> {
        let listed = list::list(&ctx.fs(), &request);
        told(ctx, listed)
    }

    /// Searches files for lines that match a regular expression. A large tree takes several requests.
    #[on("tool.v1.files.search", request = Search, reply = Searched)]
    fn search(&self, ctx: &mut Context, request: Search) -> Result<Searched, Problem> {
        let searched = search::search(&ctx.fs(), &request);
        told(ctx, searched)
    }

    /// Replaces pieces of a text file, each of which must be there exactly once; all of them or none. Line endings and marks stay.
    #[on("tool.v1.files.edit", request = EditText, reply = TextEdited)]
    fn edit(&self, ctx: &mut Context, request: EditText) -> Result<TextEdited, Problem> {
        let edited = write::edit(&mut ctx.fs(), &request);
        told(ctx, edited)
    }

    /// Says what is known of a file or directory.
    #[on("tool.v1.files.stat", request = Stat, reply = Known)]
    fn stat(&self, ctx: &mut Context, request: Stat) -> Result<Known, Problem> {
        let known = write::stat(&ctx.fs(), &request);
        told(ctx, known)
    }

    /// Makes a directory.
    #[on("tool.v1.files.make_dir", request = MakeDir, reply = Done)]
    fn make_dir(&self, ctx: &mut Context, request: MakeDir) -> Result<Done, Problem> {
        let made = write::make_dir(&mut ctx.fs(), &request);
        told(ctx, made)
    }

    /// Removes a file, a link, or a directory.
    #[on("tool.v1.files.remove", request = Remove, reply = Done)]
    fn remove(&self, ctx: &mut Context, request: Remove) -> Result<Done, Problem> {
        let removed = write::remove(&mut ctx.fs(), &request);
        told(ctx, removed)
    }

    /// Gives a file or directory another path in the same root.
    #[on("tool.v1.files.rename", request = Rename, reply = Done)]
    fn rename(&self, ctx: &mut Context, request: Rename) -> Result<Done, Problem> {
        let renamed = write::rename(&mut ctx.fs(), &request);
        told(ctx, renamed)
    }
}

#[cfg(test)]
mod tests;
