//! The C header and the Rust module are the same ABI.

#![allow(clippy::unwrap_used)] // A test may panic.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::mem::{align_of, offset_of, size_of};
use std::path::{Path, PathBuf};
use std::process::Command;

use baton_abi::hints::{self as abi, GuestHints, HintPage, HostHints};

const HEADER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/include/baton_hints.h");

/// Every number of the ABI: the C expression, and what Rust says.
fn expectations() -> BTreeMap<&'static str, u64> {
    let mut all = BTreeMap::new();
    macro_rules! constants {
        ($($name:ident),* $(,)?) => {
            $(all.insert(concat!("BATON_", stringify!($name)), u64::from(abi::$name));)*
        };
    }
    macro_rules! layout {
        ($c:literal, $rust:ty, $($field:ident),* $(,)?) => {
            all.insert(concat!("sizeof(struct ", $c, ")"), size_of::<$rust>() as u64);
            all.insert(concat!("_Alignof(struct ", $c, ")"), align_of::<$rust>() as u64);
            $(all.insert(
                concat!("__builtin_offsetof(struct ", $c, ", ", stringify!($field), ")"),
                offset_of!($rust, $field) as u64,
            );)*
        };
    }
    constants!(
        PORT_MAGIC,
        PORT_FEATURES,
        PORT_HINT_PAGE,
        PORT_DOORBELL,
        MAGIC,
        VERSION,
        FEATURE_BLOCK_WAIT,
        FEATURE_RUNNING,
        FEATURE_PROXY,
        FEATURE_DEFER,
        FEATURE_IPI_WAIT,
        DOORBELL_WAIT,
        DOORBELL_RELEASE,
        DOORBELL_IDLE,
        DOORBELL_WAKE,
        DOORBELL_REASON_BITS,
        WAIT_NONE,
        WAIT_SPIN,
        WAIT_BLOCK,
        WAIT_IPI,
        HOLDER_UNKNOWN,
        HELD_DEPTH_BITS,
        HELD_ACQUIRE,
        HELD_RELEASE,
        RING_DONATED,
        RING_DEFER,
    );
    layout!(
        "baton_guest_hints",
        GuestHints,
        seq,
        wait_kind,
        lock,
        holder,
        holder_gen,
        held,
        reserved0,
        idle_until_tsc,
        reserved1,
    );
    layout!(
        "baton_host_hints",
        HostHints,
        running,
        ring,
        donated_lock,
        steal_ns,
        preemptions,
        donor,
        reserved,
    );
    layout!("baton_hint_page", HintPage, guest, host);
    all.insert(
        "BATON_DOORBELL(BATON_DOORBELL_WAKE, 5)",
        u64::from(abi::doorbell(abi::DOORBELL_WAKE, 5)),
    );
    all
}

/// Prints each expression's value, one a line.
fn program(expressions: impl Iterator<Item = &'static str>) -> String {
    let mut source = format!("#include \"{HEADER}\"\n#include <stdio.h>\nint main(void) {{\n");
    for expression in expressions {
        writeln!(
            source,
            "printf(\"%llu\\n\", (unsigned long long)({expression}));"
        )
        .unwrap();
    }
    source + "return 0; }\n"
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("the command exists");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn header_says_the_same_to_c_as_the_module_to_rust() {
    let expected = expectations();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (source, binary) = (directory.join("header.c"), directory.join("header"));
    std::fs::write(&source, program(expected.keys().copied())).unwrap();
    run(Command::new("cc")
        .args(["-Wall", "-Wextra", "-Werror", "-o"])
        .args([&binary, &source]));

    let printed = run(&mut Command::new(&binary));

    let values = printed.lines().map(|line| line.parse::<u64>().unwrap());
    let found: BTreeMap<_, _> = expected.keys().copied().zip(values).collect();
    assert_eq!(found, expected);
}

#[test]
fn header_defines_nothing_that_the_module_does_not_know() {
    let header = std::fs::read_to_string(HEADER).unwrap();
    let expected = expectations();

    let unknown: Vec<_> = header
        .lines()
        .filter_map(|line| line.strip_prefix("#define "))
        .map(|rest| rest.split(['\t', ' ', '(']).next().unwrap())
        .filter(|&name| name != "BATON_HINTS_H" && name != "BATON_DOORBELL")
        .filter(|&name| !expected.contains_key(name))
        .collect();

    assert_eq!(unknown, Vec::<&str>::new());
}

/// What is in `directory`, sorted.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}

/// The lines that the Linux patches of `series` add as a new file `path`.
fn added_by_patches(series: &Path, path: &str) -> String {
    let names = entries(series);
    let text: String = names
        .iter()
        .map(|name| std::fs::read_to_string(name).unwrap())
        .collect();
    let start = format!("+++ b/{path}\n");
    let (_, rest) = text.split_once(&start).expect("a patch adds it");
    rest.lines()
        .skip(1)
        .map_while(|line| line.strip_prefix('+'))
        .fold(String::new(), |all, line| all + line + "\n")
}

#[test]
fn the_linux_patches_bring_the_same_header() {
    let header = std::fs::read_to_string(HEADER).unwrap();
    let linux = concat!(env!("CARGO_MANIFEST_DIR"), "/linux");
    let series: Vec<_> = entries(Path::new(linux))
        .into_iter()
        .filter(|path| path.to_string_lossy().contains("/patches-"))
        .collect();

    assert!(series.len() >= 2);
    for patches in series {
        let added = added_by_patches(&patches, "include/linux/baton_hints.h");
        assert_eq!(added, header, "{}", patches.display());
    }
}
