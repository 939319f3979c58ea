//! Asks the kernel whether the engine can run, before glommio does: glommio panics
//! where io_uring is refused.

use std::io;

use io_uring::{IoUring, Probe, opcode};

use crate::error::EngineError;

/// glommio refuses to start below this soft limit of locked memory, in bytes.
const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;

/// What was found by [`probe`].
#[derive(Debug, Clone)]
pub struct Caps {
    /// The running kernel's release, as `uname -r` says it.
    pub kernel_release: String,
    /// The soft limit of locked memory, in bytes; `None` if unlimited.
    pub memlock_bytes: Option<u64>,
}

/// Sets up a small ring as a shard would, and asks for each operation it uses.
///
/// # Errors
/// [`EngineError::IoUringRefused`] with the likely cause, [`EngineError::KernelTooOld`],
/// or [`EngineError::MemoryLock`].
pub fn probe() -> Result<Caps, EngineError> {
    let kernel_release = read_trimmed("/proc/sys/kernel/osrelease").unwrap_or_default();
    let ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .build(8)
        .map_err(|source| refused(source, &kernel_release))?;
    let mut operations = Probe::new();
    ring.submitter()
        .register_probe(&mut operations)
        .map_err(|source| refused(source, &kernel_release))?;
    let needed = [
        (opcode::Accept::CODE, "the ACCEPT operation"),
        (opcode::Connect::CODE, "the CONNECT operation"),
        (opcode::Recv::CODE, "the RECV operation"),
        (opcode::Send::CODE, "the SEND operation"),
        (opcode::SendMsg::CODE, "the SENDMSG operation"),
        (opcode::AsyncCancel::CODE, "the ASYNC_CANCEL operation"),
        (opcode::Timeout::CODE, "the TIMEOUT operation"),
        (opcode::Read::CODE, "the READ operation"),
    ];
    for (code, what) in needed {
        if !operations.is_supported(code) {
            return Err(EngineError::KernelTooOld {
                what,
                needed: "6.1",
            });
        }
    }
    if !ring.params().is_feature_ext_arg() || !ring.params().is_feature_nodrop() {
        return Err(EngineError::KernelTooOld {
            what: "EXT_ARG or NODROP",
            needed: "6.1",
        });
    }
    let memlock_bytes = memlock();
    if let Some(limit_bytes) = memlock_bytes
        && limit_bytes < MEMLOCK_BYTES_MIN
    {
        return Err(EngineError::MemoryLock {
            limit_bytes,
            needed_bytes: MEMLOCK_BYTES_MIN,
        });
    }
    Ok(Caps {
        kernel_release,
        memlock_bytes,
    })
}

fn refused(source: io::Error, kernel_release: &str) -> EngineError {
    let disabled = read_trimmed("/proc/sys/kernel/io_uring_disabled");
    let likely = match (source.raw_os_error(), disabled.as_deref()) {
        (_, Some("2")) => {
            "the sysctl kernel.io_uring_disabled is 2 (off for all); set it to 0, or to 1 with \
             kernel.io_uring_group naming the service's group"
        }
        (_, Some("1")) => {
            "the sysctl kernel.io_uring_disabled is 1 (privileged only); set it to 0, or name the \
             service's group in kernel.io_uring_group"
        }
        (Some(libc::EPERM | libc::EACCES), _) => {
            "a seccomp filter forbids io_uring_setup (containers do by default); allow io_uring_setup, \
             io_uring_enter and io_uring_register in the seccomp profile"
        }
        (Some(libc::ENOSYS), _) => {
            "the kernel was built without io_uring, or a seccomp filter hides it; Linux 6.1 or newer \
             with io_uring is needed"
        }
        (Some(libc::ENOMEM), _) => {
            "the locked-memory limit is too low; raise RLIMIT_MEMLOCK (systemd: LimitMEMLOCK=)"
        }
        (Some(libc::EINVAL), _) => {
            if kernel_release.is_empty() {
                "the kernel is older than Linux 6.1"
            } else {
                "the kernel does not know SINGLE_ISSUER or DEFER_TASKRUN; Linux 6.1 or newer is needed"
            }
        }
        (Some(libc::EMFILE | libc::ENFILE), _) => {
            "too many open files; raise RLIMIT_NOFILE (systemd: LimitNOFILE=)"
        }
        _ => "unknown; see the error of the system",
    };
    EngineError::IoUringRefused { source, likely }
}

fn read_trimmed(path: &str) -> Option<String> {
    std::fs::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_owned())
}

fn memlock() -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a live, writable rlimit.
    let answer = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    (answer == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_run_the_engine() {
        let caps = probe().unwrap();
        assert!(!caps.kernel_release.is_empty());
    }

    #[test]
    fn a_refusal_names_its_likely_cause() {
        let text = |errno| refused(io::Error::from_raw_os_error(errno), "6.18").to_string();
        // On a machine where the sysctl is set, it is named instead.
        if read_trimmed("/proc/sys/kernel/io_uring_disabled").as_deref() == Some("0") {
            assert!(text(libc::EPERM).contains("seccomp"));
            assert!(text(libc::ENOSYS).contains("without io_uring"));
            assert!(text(libc::ENOMEM).contains("MEMLOCK"));
            assert!(text(libc::EINVAL).contains("6.1"));
        }
    }
}
