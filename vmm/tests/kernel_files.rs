//! Files of kernels: `baton check --kernel`, and the symbols of a kernel, on real KVM.

mod common;

use common::{FAILED, Ran, baton, file};
use guest_tests::GUEST_ELF;

/// The built-in test guest as a file, without hint pages and with inferred hints by `symbols`.
fn run_with_symbols(name: &str, symbols: &[u8]) -> Ran {
    // Tests run at the same time, each with files of its own.
    let symbols = file(&format!("{name}.map"), symbols);
    let kernel = file(&format!("{name}.elf"), GUEST_ELF);
    let guest = file(
        &format!("{name}.toml"),
        format!(
            "[[guest]]\nname = \"own\"\nkernel = '{}'\nsymbols = '{}'\ncpus = 4\nhints = \"inferred\"\n\
             cmdline = \"workload=lock hints=stock wait=spin lock=ticket seconds=1\"\n",
            kernel.display(),
            symbols.display(),
        )
        .as_bytes(),
    );
    baton(&["run", &guest.to_string_lossy()])
}

#[test]
fn a_kernel_that_counts_is_recognised_by_its_file() {
    let kernel = file("check-guest.elf", GUEST_ELF);
    let ran = baton(&["check", "--kernel", &kernel.to_string_lossy()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("preempt count  kept, at 0x"), "{ran:?}");
    assert!(ran.stdout.contains("Baton can boot this kernel"), "{ran:?}");
}

#[test]
fn a_file_that_is_no_kernel_cannot_be_booted_and_one_that_is_missing_is_a_failure() {
    let text = file("check-text", b"no kernel\n");
    let ran = baton(&["check", "--kernel", &text.to_string_lossy()]);
    assert!(ran.stdout.contains("MISSING  boot"), "{ran:?}");
    assert!(ran.code != 0 && ran.code != FAILED, "{ran:?}");
    let ran = baton(&["check", "--kernel", "/nowhere/vmlinux"]);
    assert_eq!(ran.code, FAILED, "{ran:?}");
    assert!(ran.stderr.contains("cannot read the kernel"), "{ran:?}");
}

/// The test guest's count is elsewhere, so this is not what a scan finds.
#[test]
fn the_count_is_where_the_symbols_say() {
    let ran = run_with_symbols("elsewhere", b"0000000000009000 D pcpu_hot\n");
    assert_eq!(ran.code, 0, "{ran:?}");
    let line =
        "baton: guest own has hints inferred from the preempt count of its kernel, at 0x9008";
    assert!(
        ran.stdout.contains(line) || ran.stderr.contains(line),
        "{ran:?}"
    );
}

#[test]
fn symbols_that_are_of_no_use_are_refused_before_the_guest_runs() {
    let pointer =
        "ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n";
    let ran = run_with_symbols("debian", pointer.as_bytes());
    assert_eq!(ran.code, FAILED, "{ran:?}");
    assert!(ran.stderr.contains("linux-image-<version>-dbg"), "{ran:?}");
    let kernel = file("no-use.map", b"");
    let kernel = kernel.to_string_lossy();
    for flags in [&["--hints", "page"][..], &["--hints", "off"], &[]] {
        let run = ["run", "--kernel", &kernel, "--symbols", &kernel];
        let ran = baton(&[&run, flags].concat());
        assert_eq!(ran.code, FAILED, "{ran:?}");
        assert!(
            ran.stderr
                .contains("symbols are used only to find the kernel's preempt count"),
            "{ran:?}"
        );
    }
}
