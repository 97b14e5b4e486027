//! A file with the symbols of a kernel: `System.map`, or `vmlinux` with its symbol table.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use object::read::ReadCache;
use thiserror::Error;

use super::elf;
use super::symbols::Symbols;
use crate::inferred::LinkedCount;

/// Largest `System.map` that is read, bytes. Those of distributions have less than 10 MiB.
const MAX_MAP: u64 = 64 << 20;
/// What the `System.map` of Debian's kernels has in its only line.
const POINTER: &str = "The real System.map is in";

/// The symbols of a kernel could not be used.
#[derive(Debug, Error)]
pub enum SymbolsError {
    /// The file cannot be read.
    #[error("cannot read the symbols {path}: {source}", path = .path.display())]
    Read {
        /// Path as given.
        path: PathBuf,
        /// The host's error.
        source: io::Error,
    },
    /// The file is neither of the forms in which a kernel's symbols come.
    #[error(
        "{path} has no symbols: {why}; give the System.map or the vmlinux of the kernel's build",
        path = .path.display()
    )]
    NoSymbols {
        /// Path as given.
        path: PathBuf,
        /// What is wrong with the file.
        why: String,
    },
    /// The file only names the place of the symbols.
    #[error("{path} has no symbols, it only says: {text}; install that, and give its file", path = .path.display())]
    Elsewhere {
        /// Path as given.
        path: PathBuf,
        /// The line of the file.
        text: String,
    },
    /// The addresses in the file are all 0.
    #[error(
        "the symbols {path} have no addresses, which Linux hides from ordinary users: give a copy made by root",
        path = .0.display()
    )]
    Hidden(PathBuf),
    /// The symbols do not include the preempt count.
    #[error(
        "the symbols {path} include neither __preempt_count nor pcpu_hot: give those of a Linux kernel for \
         x86-64, or leave the symbols out",
        path = .0.display()
    )]
    NoCount(PathBuf),
}

/// Where the preempt count is by the symbols in the file at `path`.
///
/// # Errors
/// If the file cannot be read, or does not have that symbol.
pub fn read_symbols(path: &Path) -> Result<LinkedCount, SymbolsError> {
    let symbols = read(path)?;
    if symbols.is_hidden() {
        return Err(SymbolsError::Hidden(path.to_owned()));
    }
    symbols
        .count()
        .ok_or_else(|| SymbolsError::NoCount(path.to_owned()))
}

fn read(path: &Path) -> Result<Symbols, SymbolsError> {
    let cannot_read = |source| SymbolsError::Read {
        path: path.to_owned(),
        source,
    };
    let no_symbols = |why: String| SymbolsError::NoSymbols {
        path: path.to_owned(),
        why,
    };
    let mut file = File::open(path).map_err(cannot_read)?;
    let mut magic = Vec::new();
    let mut head = Read::by_ref(&mut file).take(4);
    head.read_to_end(&mut magic).map_err(cannot_read)?;
    if magic == b"\x7fELF" {
        // Of a file that may have debug information of a gigabyte only the tables are read.
        let symbols = elf::symbols(&ReadCache::new(file));
        let symbols = symbols.map_err(|error| no_symbols(error.to_string()))?;
        return symbols.ok_or_else(|| no_symbols("its symbol table was removed".to_owned()));
    }
    let mut map = magic;
    let mut rest = file.take(MAX_MAP + 1);
    rest.read_to_end(&mut map).map_err(cannot_read)?;
    if map.len() as u64 > MAX_MAP {
        return Err(no_symbols("it is larger than any System.map".to_owned()));
    }
    of_map(path, &map)
}

/// The symbols in the lines of a `System.map` of `path`: address, type, name.
fn of_map(path: &Path, map: &[u8]) -> Result<Symbols, SymbolsError> {
    let mut symbols = Symbols::default();
    let mut is_map = false;
    for line in map.split(|&byte| byte == b'\n') {
        let mut fields = line.split(|byte| byte.is_ascii_whitespace());
        let address = fields
            .next()
            .and_then(|field| std::str::from_utf8(field).ok());
        let address = address.and_then(|field| u64::from_str_radix(field, 16).ok());
        let (Some(address), Some(_), Some(name)) = (address, fields.next(), fields.next()) else {
            continue;
        };
        is_map = true;
        symbols.add(name, address);
    }
    let text = map.get(..256.min(map.len())).map(String::from_utf8_lossy);
    let text = text.unwrap_or_default();
    if let Some(at) = text.find(POINTER) {
        return Err(SymbolsError::Elsewhere {
            path: path.to_owned(),
            text: text[at..].lines().next().unwrap_or_default().to_owned(),
        });
    }
    match is_map {
        true => Ok(symbols),
        false => Err(SymbolsError::NoSymbols {
            path: path.to_owned(),
            why: "it is neither a System.map nor an ELF file".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel_image::sample;

    fn map(text: &str) -> Result<Symbols, SymbolsError> {
        of_map(Path::new("System.map"), text.as_bytes())
    }

    fn refusal(result: Result<LinkedCount, SymbolsError>) -> String {
        result.expect_err("refused").to_string()
    }

    /// What [`read_symbols`] makes of a file with these bytes.
    fn of_file(name: &str, bytes: &[u8]) -> Result<LinkedCount, SymbolsError> {
        let name = format!("baton-symbols-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes).expect("a temporary file");
        let result = read_symbols(&path);
        std::fs::remove_file(&path).expect("the temporary file");
        result
    }

    #[test]
    fn a_map_names_the_count_and_the_entry() {
        let text = "0000000000035000 D pcpu_hot\nffffffff82000080 T entry_SYSCALL_64\n\
                    ffffffffc0001000 t baton_look\t[lockbench]\n";
        let count = of_file("map", text.as_bytes()).expect("a map");
        assert_eq!(count.offset, 0x35008);
        assert_eq!(count.syscall_entry, Some(0xffff_ffff_8200_0080));
    }

    #[test]
    fn an_elf_file_names_them_in_its_table() {
        let image = sample::vmlinux("", &[]);
        let count = of_file("elf", &image).expect("symbols");
        assert_eq!(count.offset, sample::COUNT);
        assert_eq!(count.syscall_entry, Some(sample::SYSCALL));
    }

    #[test]
    fn an_elf_file_without_a_table_is_refused() {
        let mut image = sample::vmlinux("", &[]);
        // The number of sections.
        image[60] = 0;
        image[40..48].fill(0);
        let text = refusal(of_file("stripped", &image));
        assert!(text.contains("its symbol table was removed"), "{text}");
        let text = refusal(of_file("short", &image[..30]));
        assert!(text.contains("has no symbols"), "{text}");
    }

    #[test]
    fn a_map_that_names_another_file_is_refused_with_its_words() {
        let text = map(
            "ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n",
        );
        let text = text.expect_err("a pointer").to_string();
        assert!(
            text.contains("is in the linux-image-<version>-dbg package"),
            "{text}"
        );
    }

    #[test]
    fn a_map_of_hidden_addresses_is_refused() {
        let text = "0000000000000000 A __preempt_count\n0000000000000000 T entry_SYSCALL_64\n";
        let text = refusal(of_file("hidden", text.as_bytes()));
        assert!(text.contains("have no addresses"), "{text}");
    }

    #[test]
    fn what_is_no_map_or_has_no_count_is_refused() {
        let text = refusal(of_file("text", b"# a configuration\nCONFIG_SMP=y\n"));
        assert!(
            text.contains("neither a System.map nor an ELF file"),
            "{text}"
        );
        let text = refusal(of_file("other", b"ffffffff81000000 T _text\n"));
        assert!(
            text.contains("neither __preempt_count nor pcpu_hot"),
            "{text}"
        );
        let text = refusal(of_file("empty", b""));
        assert!(
            text.contains("neither a System.map nor an ELF file"),
            "{text}"
        );
        let text = refusal(read_symbols(Path::new("/nowhere/System.map")));
        assert!(text.contains("cannot read the symbols /nowhere"), "{text}");
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_are_no_map(bytes in proptest::collection::vec(0..=255u8, 0..2000)) {
            let _ = of_map(Path::new("map"), &bytes);
        }
    }
}
