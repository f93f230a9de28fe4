//! The command line as its users meet it: help texts and exit codes.

use clap::CommandFactory;
use rekindle::cli::Cli;

#[test]
fn the_command_tree_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_says_its_task_and_shows_an_example() {
    for command in Cli::command().get_subcommands() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(!about.is_empty(), "`{}` does not say what it is for", command.get_name());
        let help = command.clone().render_long_help().to_string();
        assert!(help.contains("$ rekindle "), "`{}` shows no example:\n{help}", command.get_name());
    }
}
