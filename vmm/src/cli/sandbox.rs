//! The flags about the sandbox of a guest's process.

use baton_sandbox::User;
use clap::Args;

/// Flags of `baton vm`, which `baton start` passes on.
#[derive(Clone, Copy, Debug, Args)]
pub struct SandboxFlags {
    /// Run the guest's process as this user, as in 200001, 200001:200001 or alice:vms; root alone can do that
    #[arg(long, value_name = "USER[:GROUP]", conflicts_with = "no_sandbox")]
    pub sandbox_user: Option<User>,
    /// Let the guest's process reach all that its user can reach, and make all system calls: for debugging
    #[arg(long)]
    pub no_sandbox: bool,
}

impl SandboxFlags {
    /// The same flags as words of a command line.
    #[must_use]
    pub fn words(self) -> Vec<String> {
        let user = self
            .sandbox_user
            .map(|user| format!("--sandbox-user={user}"));
        let none = self.no_sandbox.then(|| "--no-sandbox".to_owned());
        user.into_iter().chain(none).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        flags: SandboxFlags,
    }

    fn words(line: &[&str]) -> Vec<String> {
        let line = Line::try_parse_from([&["x"], line].concat());
        line.expect("flags").flags.words()
    }

    #[test]
    fn the_words_are_the_flags_again() {
        assert!(words(&[]).is_empty());
        assert_eq!(words(&["--no-sandbox"]), ["--no-sandbox"]);
        let user = words(&["--sandbox-user", "200001:7"]);
        assert_eq!(user, ["--sandbox-user=200001:7"]);
        let again: Vec<&str> = user.iter().map(String::as_str).collect();
        assert_eq!(words(&again), user);
    }

    #[test]
    fn a_user_needs_a_sandbox() {
        let both = ["x", "--no-sandbox", "--sandbox-user", "1"];
        assert!(Line::try_parse_from(both).is_err());
    }
}
