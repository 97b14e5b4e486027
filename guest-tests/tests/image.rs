//! The guest is an image that any loader of a 64-bit `vmlinux` takes.

use guest_tests::GUEST_ELF;

fn number<const N: usize>(at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[..N].copy_from_slice(&GUEST_ELF[at..at + N]);
    u64::from_le_bytes(bytes)
}

#[test]
fn guest_is_a_static_64_bit_executable_entered_at_its_first_byte() {
    const CLASS_64: u8 = 2;
    const TYPE_EXEC: u64 = 2;
    const MACHINE_X86_64: u64 = 62;
    const SEGMENT_LOAD: u64 = 1;
    assert_eq!(&GUEST_ELF[..4], b"\x7fELF");
    assert_eq!(GUEST_ELF[4], CLASS_64);
    assert_eq!(number::<2>(16), TYPE_EXEC);
    assert_eq!(number::<2>(18), MACHINE_X86_64);
    let entry = number::<8>(24);
    let (segments, count) = (number::<8>(32) as usize, number::<2>(56));

    // One segment, and no interpreter or dynamic section that would need another.
    assert_eq!(count, 1);
    assert_eq!(number::<4>(segments), SEGMENT_LOAD);
    let physical = number::<8>(segments + 24);
    let in_memory = number::<8>(segments + 40);
    assert_eq!(physical, 1 << 20);
    assert_eq!(entry, physical);
    assert!(
        physical + in_memory <= 8 << 20,
        "fits the smallest machine that tests use"
    );
}
