use std::fs::File;

use super::*;

fn memfd(size: u64, seals: SealFlags) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = fs::memfd_create("test", flags).expect("a memory file");
    fs::ftruncate(&file, size).expect("resized");
    fs::fcntl_add_seals(&file, seals).expect("sealed");
    file
}

#[test]
fn what_one_process_writes_the_other_reads() {
    let (ours, file) = GuestPages::create(3).expect("pages");
    let theirs = GuestPages::accept(&file, 3).expect("accepted");
    for (number, (ours, theirs)) in (1..).zip(ours.iter().zip(theirs.iter())) {
        ours.answer.number.store(number);
        assert_eq!(theirs.answer.number.load(), number);
    }
}

#[test]
fn a_memory_file_that_can_change_its_size_is_refused() {
    for seals in [
        SealFlags::empty(),
        SealFlags::SHRINK,
        SealFlags::SHRINK | SealFlags::GROW,
        SEALS | SealFlags::WRITE,
    ] {
        let refused = GuestPages::accept(&memfd(4096, seals), 1);
        assert!(matches!(refused, Err(PagesError::Seals)), "{seals:?}");
    }
}

#[test]
fn a_memory_file_of_another_size_is_refused() {
    let file = memfd(2 * 4096, SEALS);
    for vcpus in [1, 3] {
        let refused = GuestPages::accept(&file, vcpus);
        assert!(matches!(
            refused,
            Err(PagesError::Size { actual: 8192, .. })
        ));
    }
    let refused = GuestPages::accept(&file, 2);
    assert!(matches!(
        refused,
        Err(PagesError::Header(HeaderError::Magic(0)))
    ));
}

#[test]
fn files_that_are_no_memory_files_are_refused() {
    let (pipe, _other) = rustix::pipe::pipe().expect("a pipe");
    let disk = File::open("/proc/self/exe").expect("the test");
    let device = File::open("/dev/zero").expect("a device");
    for file in [pipe, disk.into(), device.into()] {
        let refused = GuestPages::accept(&file, 1);
        assert!(matches!(refused, Err(PagesError::NoMemfd)));
    }
}

#[test]
fn a_memory_file_of_huge_pages_is_refused_where_the_host_has_them() {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
    let Ok(file) = fs::memfd_create("test", flags) else {
        return;
    };
    fs::fcntl_add_seals(&file, SEALS).expect("sealed");
    let refused = GuestPages::accept(&file, 1);
    assert!(matches!(refused, Err(PagesError::NoMemfd)));
}

#[test]
fn a_memory_file_that_is_open_for_reading_only_is_refused() {
    use std::os::fd::AsRawFd;
    let file = memfd(4096, SEALS);
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let read_only = File::open(path).expect("opened again");
    let refused = GuestPages::accept(&read_only.into(), 1);
    assert!(matches!(refused, Err(PagesError::Access)));
}

#[test]
fn a_guest_has_at_least_one_vcpu_and_not_too_many() {
    for vcpus in [0, MAX_VCPUS + 1, u32::MAX] {
        assert!(matches!(GuestPages::create(vcpus), Err(PagesError::Vcpus(n)) if n == vcpus));
    }
    assert!(GuestPages::create(MAX_VCPUS).is_ok());
}

#[test]
fn pages_that_have_been_in_use_are_refused() {
    let (ours, file) = GuestPages::create(2).expect("pages");
    ours.iter().last().expect("a page").command.number.store(7);
    let refused = GuestPages::accept(&file, 2);
    assert!(matches!(
        refused,
        Err(PagesError::Header(HeaderError::Used(1)))
    ));
}
