//! Why there is no view.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// There is no view.
#[derive(Debug, Error)]
pub enum TopError {
    /// No instance runs.
    #[error(
        "no running instance of baton offers a control socket in {}: start one with baton run, or \
         name its socket with --socket", listed(.0)
    )]
    None(Vec<PathBuf>),
    /// The process that the user named has no control socket.
    #[error(
        "the process {0} offers no control socket in {dirs}: name its socket with --socket",
        dirs = listed(.1)
    )]
    NotThis(u32, Vec<PathBuf>),
    /// Several instances run, and the user named none of them.
    #[error("several instances run: name one of {0}, as in baton top {first}", first = .0.split(' ').next().unwrap_or_default())]
    Several(String),
    /// The instance did not answer.
    #[error("cannot ask the instance at {}: {source}", path.display())]
    Ask {
        /// Its socket.
        path: PathBuf,
        /// The error of the connection.
        source: io::Error,
    },
    /// The terminal could not be used.
    #[error("cannot use the terminal ({0}): use --once for plain text")]
    Terminal(io::Error),
}

impl TopError {
    /// The instance whose socket is at `path` did not answer.
    pub(super) fn ask(path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Ask {
            path: path.clone(),
            source,
        }
    }
}

/// `directories` in a sentence.
fn listed(directories: &[PathBuf]) -> String {
    let names = directories.iter().map(|path| path.display().to_string());
    names.collect::<Vec<_>>().join(" or ")
}
