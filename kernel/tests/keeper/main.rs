//! The keeper, its guard and its launchers as real processes (A14, A18): this program is each of them when it is started as a daemon
//! would start itself. So it has no test harness.
//!
//! A daemon is played by the test, which says what it likes on the socket. That nothing is left is read from `/proc`, by the mark.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

mod act;
mod bed;
mod children;
mod confined;
mod given;
mod lives;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use astrid_kernel::home::Home;
use astrid_kernel::keeper::machine::MACHINE_ARGUMENT;
use astrid_kernel::keeper::{self, INNER_ARGUMENT, KEEPER_ARGUMENT, LAUNCHER_ARGUMENT};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [LAUNCHER_ARGUMENT] => {
            let _ = keeper::launcher::run();
            ExitCode::FAILURE
        }
        [KEEPER_ARGUMENT, "--home", home] => ended(keeper::guard::run(&Home::resolve(Some(Path::new(home))).unwrap())),
        [KEEPER_ARGUMENT, "--home", home, INNER_ARGUMENT, guard] => ended(keeper::serve(
            Home::resolve(Some(Path::new(home))).unwrap(),
            guard.parse().unwrap(),
        )),
        [confined::WITHOUT_NAMESPACES] => {
            confined::without_namespaces();
            ExitCode::SUCCESS
        }
        [given::WITHOUT_LANDLOCK] => {
            given::without_landlock();
            ExitCode::SUCCESS
        }
        [MACHINE_ARGUMENT, what, place] => match keeper::machine::attempt(what, Path::new(place)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                println!("{why}");
                ExitCode::FAILURE
            }
        },
        [act::ACT, ref words @ ..] => {
            act::act(words);
            ExitCode::SUCCESS
        }
        ref filter => tests(filter),
    }
}

fn ended(result: std::io::Result<()>) -> ExitCode {
    ExitCode::from(u8::from(result.is_err()))
}

fn tests(filter: &[&str]) -> ExitCode {
    let wanted: Vec<&&str> = filter.iter().filter(|word| !word.starts_with('-')).collect();
    let all: &[(&str, fn())] = &[
        ("exits_are_told", children::exits_are_told),
        ("what_cannot_run_is_told_apart", children::what_cannot_run_is_told_apart),
        (
            "a_child_is_given_what_it_should_be",
            children::a_child_is_given_what_it_should_be,
        ),
        ("streams", children::streams),
        ("limits_bind", children::limits_bind),
        (
            "what_a_main_process_leaves_is_killed",
            children::what_a_main_process_leaves_is_killed,
        ),
        ("a_tree_ends_whatever_it_does", children::a_tree_ends_whatever_it_does),
        ("signals_reach", children::signals_reach),
        ("the_home_is_out_of_reach", children::the_home_is_out_of_reach),
        ("writes_only_what_it_was_given", confined::writes_only_what_it_was_given),
        ("reads_only_what_it_was_given", confined::reads_only_what_it_was_given),
        ("speaks_only_with_whom_it_may", confined::speaks_only_with_whom_it_may),
        ("does_not_get_out", confined::does_not_get_out),
        ("a_tmp_of_its_own", confined::a_tmp_of_its_own),
        ("what_is_given_below_tmp_stays", given::what_is_given_below_tmp_stays),
        (
            "a_link_that_was_left_is_not_followed",
            given::a_link_that_was_left_is_not_followed,
        ),
        (
            "the_home_is_not_given_by_another_name",
            given::the_home_is_not_given_by_another_name,
        ),
        ("shared_memory_of_its_own", given::shared_memory_of_its_own),
        ("best_effort_keeps_the_home", given::best_effort_keeps_the_home),
        ("what_cannot_be_given_is_named", confined::what_cannot_be_given_is_named),
        ("modes_of_the_home_are_kept", confined::modes_of_the_home_are_kept),
        (
            "the_home_is_kept_wherever_it_is_mounted",
            confined::the_home_is_kept_wherever_it_is_mounted,
        ),
        (
            "root_does_not_set_up_the_machine",
            confined::root_does_not_set_up_the_machine,
        ),
        ("a_merged_directory_is_shared", confined::a_merged_directory_is_shared),
        (
            "what_cannot_be_merged_is_named",
            confined::what_cannot_be_merged_is_named,
        ),
        (
            "only_its_own_is_merged_without_root",
            confined::only_its_own_is_merged_without_root,
        ),
        (
            "what_this_machine_cannot_is_named",
            confined::what_this_machine_cannot_is_named,
        ),
        (
            "a_tree_has_limits_or_it_is_said",
            confined::a_tree_has_limits_or_it_is_said,
        ),
        ("a_machine_is_looked_at", confined::a_machine_is_looked_at),
        ("as_an_ordinary_user", confined::as_an_ordinary_user),
        (
            "the_end_is_asked_for_then_forced",
            lives::the_end_is_asked_for_then_forced,
        ),
        ("nothing_outlives_any_two", lives::nothing_outlives_any_two),
        (
            "who_hides_from_everybody_is_inherited",
            lives::who_hides_from_everybody_is_inherited,
        ),
        (
            "adopted_children_find_the_next_daemon",
            lives::adopted_children_find_the_next_daemon,
        ),
        (
            "only_the_right_daemon_is_let_in",
            lives::only_the_right_daemon_is_let_in,
        ),
        ("garbage_ends_the_conversation", lives::garbage_ends_the_conversation),
        ("many_at_once", lives::many_at_once),
        ("a_daemon_that_does_not_read", lives::a_daemon_that_does_not_read),
        ("one_keeper_a_home", lives::one_keeper_a_home),
    ];
    for (name, test) in all {
        if wanted.is_empty() || wanted.iter().any(|wanted| name.contains(**wanted)) {
            let begun = Instant::now();
            test();
            println!("test {name} ... ok ({} ms)", begun.elapsed().as_millis());
        }
    }
    ExitCode::SUCCESS
}
