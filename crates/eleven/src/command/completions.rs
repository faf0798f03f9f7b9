//! `eleven completions`: what a shell has to know to complete the command line, made from the command line itself.

use crate::cli::Cli;
use clap::{Args, CommandFactory, ValueEnum};
use std::io::Write;
use std::process::ExitCode;

/// `eleven completions`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  eleven completions bash > /usr/share/bash-completion/completions/eleven\n  eleven completions zsh > \"${fpath[1]}/_eleven\"\n  eleven completions fish > ~/.config/fish/completions/eleven.fish"
)]
pub struct Completions {
    /// The shell.
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// A shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// bash, with bash-completion.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

impl Completions {
    /// Writes the script to standard output.
    pub fn run(&self) -> ExitCode {
        let text = script(self.shell);
        // Nobody reads on: nothing is wrong.
        let _ = std::io::stdout().lock().write_all(&text);
        ExitCode::SUCCESS
    }
}

fn script(shell: Shell) -> Vec<u8> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "eleven", &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command and every long option of `get` is known to each shell.
    #[test]
    fn every_shell_knows_every_option() {
        let command = Cli::command();
        let get = command.find_subcommand("get").unwrap();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = String::from_utf8(script(shell)).unwrap();
            for known in command.get_subcommands() {
                assert!(text.contains(known.get_name()), "{shell:?}: {}", known.get_name());
            }
            for option in get.get_arguments().filter(|option| !option.is_hide_set()) {
                let Some(long) = option.get_long() else { continue };
                assert!(text.contains(long), "{shell:?}: --{long}");
            }
        }
    }
}
