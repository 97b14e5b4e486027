//! Hosts with more CPUs than the `cpu_set_t` of the C library can hold, which is 1,024.

mod common;

use std::io;
use std::mem::offset_of;
use std::os::unix::process::CommandExt;

use common::{Running, baton, command, file, number};

/// Bytes of a set of 2,048 CPUs.
const SET_OF_2048: u32 = 2_048 / 8;

/// A filter under which `sched_getaffinity` refuses sets of fewer than 2,048 CPUs, as on a host that may have
/// so many.
fn filter() -> [libc::sock_filter; 6] {
    let step = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let number = offset_of!(libc::seccomp_data, nr) as u32;
    // The second argument, its lower half.
    let length = offset_of!(libc::seccomp_data, args) as u32 + 8;
    [
        step(load, number, 0, 0),
        step(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            libc::SYS_sched_getaffinity as u32,
            0,
            2,
        ),
        step(load, length, 0, 0),
        step(
            libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K,
            SET_OF_2048,
            0,
            1,
        ),
        step(libc::BPF_RET, libc::SECCOMP_RET_ALLOW, 0, 0),
        step(
            libc::BPF_RET,
            libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32,
            0,
            0,
        ),
    ]
}

/// Puts the calling process and all its children under [`filter`].
fn large_host() -> io::Result<()> {
    let mut steps = filter();
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: both calls may be made between fork and exec; the program lives through the second.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            ) == 0
    };
    match done {
        true => Ok(()),
        false => Err(io::Error::last_os_error()),
    }
}

#[test]
fn a_run_starts_on_a_host_with_more_than_1024_cpus() {
    for sched in ["baton", "host"] {
        let mut command = command(&["run", "--cpus", "2", "--sched", sched]);
        command.args(["--cmdline", "lock=ticket acquisitions=100"]);
        command.args(["--summary", "json"]);
        // SAFETY: the function makes two system calls and allocates nothing.
        unsafe { command.pre_exec(large_host) };
        let ran = Running::spawn(&mut command).finish();
        assert_eq!(ran.code, 0, "{ran:?}");
        let workload = &ran.summary()["guests"][0]["workload"];
        assert_eq!(number(workload, "acquisitions"), 200, "{workload}");
    }
}

#[test]
fn a_vcpu_that_would_be_pinned_to_less_than_was_asked_for_is_refused() {
    let text = b"[[guest]]\nname = \"db\"\ncmdline = \"workload=boot\"\nhost_cpus = \"0,8191\"\n";
    let config = file("pinned-to-less.toml", text);
    for sched in ["baton", "host"] {
        let ran = baton(&["run", &config.to_string_lossy(), "--sched", sched]);
        let sentence = ran.one_sentence();
        assert!(
            sentence.contains("guest db: host CPU 8191 is not in the pool"),
            "{sentence}"
        );
    }
}
