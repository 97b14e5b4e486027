//! The system calls that stay permitted.
//!
//! The list is what the tests' guests make with all devices, consoles, restarts of guests and of the pool. What is
//! missing is what an attacker wants: programs, other processes and their memory, mounts and namespaces, the network,
//! modules, keys, BPF, io_uring, memory that can be executed.

use std::collections::BTreeMap;

use libc::{
    AF_UNIX, CLONE_FILES, CLONE_FS, CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS,
    CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS, CLONE_SIGHAND, CLONE_THREAD, CLONE_VM, PR_SET_NAME,
    PR_SET_TIMERSLACK, PR_SET_VMA, PROT_EXEC,
};
use rustix::process::getpid;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::error::SandboxError;
use crate::ioctls;

/// `PR_GET_AUXV`, which reads what the kernel told the process at its start.
const PR_GET_AUXV: i32 = 0x4155_5856;

/// Permitted with all arguments.
const PERMITTED: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_access,
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_connect,
    libc::SYS_dup,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpeername,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_listen,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_memfd_create,
    libc::SYS_mkdirat,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_newfstatat,
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_perf_event_open,
    libc::SYS_pipe2,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_read,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getattr,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_timer_create,
    libc::SYS_timer_delete,
    libc::SYS_timer_settime,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_uname,
    libc::SYS_unlinkat,
    libc::SYS_write,
    libc::SYS_writev,
];

/// What a `clone` may not ask for: a process or a namespace.
const NO_THREAD: i32 = CLONE_NEWCGROUP
    | CLONE_NEWIPC
    | CLONE_NEWNET
    | CLONE_NEWNS
    | CLONE_NEWPID
    | CLONE_NEWUSER
    | CLONE_NEWUTS;
/// What a `clone` has to ask for: a thread.
const THREAD: i32 = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;

/// Forbids the calling process, and all threads that it starts, all system calls that are not permitted. It needs
/// `no_new_privs`.
pub(crate) fn forbid_others() -> Result<(), SandboxError> {
    // The last one permits no further filter.
    for filter in [without_clone3(), permitted()] {
        let program = filter.and_then(|filter| filter.try_into());
        let program: BpfProgram = program.map_err(failed)?;
        seccompiler::apply_filter(&program).map_err(failed)?;
    }
    Ok(())
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> SandboxError {
    SandboxError::step("system calls")(std::io::Error::other(error))
}

/// The filter that ends the process at a system call that is not permitted.
fn permitted() -> Result<SeccompFilter, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        PERMITTED.iter().map(|&call| (call, Vec::new())).collect();
    let requests: Result<Vec<_>, _> = ioctls::permitted()
        .map(|request| masked(1, ioctls::TYPE_AND_NUMBER, request))
        .collect();
    rules.insert(libc::SYS_ioctl, requests?);
    // Signals to the process's own threads.
    let process = u64::try_from(getpid().as_raw_nonzero().get()).unwrap_or(0);
    rules.insert(libc::SYS_tgkill, vec![equal(0, process)?]);
    // No network.
    let unix = u64::from(AF_UNIX.unsigned_abs());
    rules.insert(libc::SYS_socket, vec![equal(0, unix)?]);
    rules.insert(libc::SYS_socketpair, vec![equal(0, unix)?]);
    // Limits of this process, which it can only lower without privileges.
    rules.insert(libc::SYS_prlimit64, vec![equal(0, 0)?]);
    let execute = u64::from(PROT_EXEC.unsigned_abs());
    rules.insert(libc::SYS_mmap, vec![masked(2, execute, 0)?]);
    rules.insert(libc::SYS_mprotect, vec![masked(2, execute, 0)?]);
    let options = [PR_SET_NAME, PR_SET_TIMERSLACK, PR_SET_VMA, PR_GET_AUXV];
    let options: Result<Vec<_>, _> = options
        .iter()
        .map(|option| equal(0, u64::from(option.unsigned_abs())))
        .collect();
    rules.insert(libc::SYS_prctl, options?);
    let (thread, all) = (
        u64::from(THREAD.unsigned_abs()),
        u64::from((THREAD | NO_THREAD).unsigned_abs()),
    );
    rules.insert(libc::SYS_clone, vec![masked(0, all, thread)?]);
    // Answered by `without_clone3`.
    rules.insert(libc::SYS_clone3, Vec::new());
    SeccompFilter::new(
        rules,
        SeccompAction::Trap,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )
}

/// The filter by which `clone3` seems to be missing, so that the C library uses `clone`, whose arguments a filter can
/// see.
fn without_clone3() -> Result<SeccompFilter, seccompiler::BackendError> {
    SeccompFilter::new(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
        TargetArch::x86_64,
    )
}

/// The argument `index` is `value`.
fn equal(index: u8, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    rule(index, SeccompCmpOp::Eq, value)
}

/// The argument `index` is `value` in the bits of `mask`.
fn masked(index: u8, mask: u64, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    rule(index, SeccompCmpOp::MaskedEq(mask), value)
}

fn rule(
    index: u8,
    operation: SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, seccompiler::BackendError> {
    let condition = SeccompCondition::new(index, SeccompCmpArgLen::Dword, operation, value)?;
    SeccompRule::new(vec![condition])
}
