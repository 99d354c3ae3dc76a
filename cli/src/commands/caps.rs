//! `astrid caps ...`: what a principal may do, and why. Every command is one request to the kernel (`astrid.v1.admin.caps.*`).

use astrid_wire::Principal;
use astrid_wire::authority::{Action, Capability, Explanation};
use astrid_wire::control::admin::{Admin, Change, Checked, Question};
use clap::Subcommand;

use super::{agent, ask_admin};
use crate::cli::Context;
use crate::failure::{Exit, Failure};
use crate::output::{Output, printable};

/// Say what a principal may do, take it away, and ask why something is decided as it is
///
/// A capability is an action and what it is done to: `publish:notes.v1.>`, `child.spawn:/usr/bin/git`, `kv`, `admin:quota.get`. In names `*`
/// is one segment and a final `>` all that follow; without a resource it is any.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Let a principal do something
    Grant(ChangeArgs),
    /// Forbid a principal something, whatever grants it; open connections and programs that need it end
    Revoke(ChangeArgs),
    /// Whether a principal may do something: exit code 0, or 4
    Check(QuestionArgs),
    /// Why a principal may do something or not, and what would have to change
    Explain(QuestionArgs),
}

#[derive(Debug, clap::Args)]
struct ChangeArgs {
    /// Whom; `capsule:NAME` is a capsule that may guard topics
    #[arg(value_parser = Principal::stamped)]
    name: Principal,
    /// What
    #[arg(required = true, value_name = "CAPABILITY")]
    capabilities: Vec<Capability>,
}

#[derive(Debug, clap::Args)]
struct QuestionArgs {
    /// Who acts; `capsule:NAME` is a capsule that acts for nobody else
    #[arg(value_parser = Principal::stamped)]
    name: Principal,
    /// Through which capsule; `-` asks only for the principal's part
    capsule: String,
    /// What it does: publish, subscribe, observe, kv, timer, pin, document, child.spawn, admin, ...
    action: Action,
    /// To what
    resource: String,
}

impl From<QuestionArgs> for Question {
    fn from(args: QuestionArgs) -> Self {
        Self {
            principal: args.name,
            capsule: (args.capsule != "-").then_some(args.capsule),
            action: args.action,
            resource: args.resource,
        }
    }
}

pub(super) fn run(context: &Context, args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Grant(args) => change(context, Admin::CapsGrant, args),
        Command::Revoke(args) => change(context, Admin::CapsRevoke, args),
        Command::Check(args) => check(context, args.into()),
        Command::Explain(args) => explain(context, args.into()),
    }
}

fn change(context: &Context, admin: Admin, args: ChangeArgs) -> anyhow::Result<()> {
    let change = Change {
        name: args.name,
        capabilities: args.capabilities,
    };
    let report = ask_admin(context, admin, &change)?;
    agent::show(context, &report)
}

fn check(context: &Context, question: Question) -> anyhow::Result<()> {
    let checked: Checked = ask_admin(context, Admin::CapsCheck, &question)?;
    if context.output.is_json() {
        Output::json(&checked)?;
    }
    if checked.allowed {
        return Ok(());
    }
    let text = format!(
        "{} may not {} {}",
        question.principal, question.action, question.resource
    );
    Err(Failure::new(Exit::Denied, text)
        .hint("`astrid caps explain` says why")
        .into())
}

fn explain(context: &Context, question: Question) -> anyhow::Result<()> {
    let explained: Explanation = ask_admin(context, Admin::CapsExplain, &question)?;
    if context.output.is_json() {
        return Output::json(&explained);
    }
    let style = Output::style();
    let word = if explained.allowed {
        style.good("may")
    } else {
        style.bad("may not")
    };
    let through = question
        .capsule
        .as_ref()
        .map_or_else(String::new, |capsule| format!(" through {capsule}"));
    let mut text = format!(
        "{} {word} {} {}{}\nbecause {}\n",
        question.principal,
        question.action,
        printable(&question.resource),
        printable(&through),
        printable(&explained.rule)
    );
    text.push_str(&format!("to change that: {}\n", printable(&explained.change)));
    Output::bytes(text.as_bytes())
}
