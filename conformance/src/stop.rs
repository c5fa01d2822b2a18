//! Runs a program and kills it just before its N-th system call that is more than a look: `conformance-stop N PROGRAM
//! [ARGUMENT...]`. What it leaves behind is for the caller to see. Exit: 137 if it was killed, else the program's code.
//!
//! For FreeBSD, where the cases are shell scripts; on Linux potrun's own tests do the same.

#[cfg(not(target_os = "freebsd"))]
fn main() {
    eprintln!("conformance-stop: is for FreeBSD");
    std::process::exit(2);
}

#[cfg(target_os = "freebsd")]
fn main() {
    std::process::exit(freebsd::main());
}

#[cfg(target_os = "freebsd")]
mod freebsd {
    use std::io;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    /// System calls that change nothing outside of the process (sys/kern/syscalls.master). Opening and sysctl(3) may,
    /// but then one that is not here follows, before which it is killed as well.
    const LOOKS: &[u32] = &[
        3,   // read
        6,   // close
        20,  // getpid
        24,  // getuid
        25,  // geteuid
        33,  // access
        39,  // getppid
        43,  // getegid
        47,  // getgid
        49,  // getlogin
        54,  // ioctl, of which those that change are few: they are followed by others
        58,  // readlink
        73,  // munmap
        74,  // mprotect
        75,  // madvise
        92,  // fcntl
        165, // sysarch
        202, // sysctl
        232, // clock_gettime
        253, // issetugid
        326, // getcwd
        340, // sigprocmask
        416, // sigaction
        417, // sigreturn
        432, // thr_self
        454, // umtx_op
        475, // pread
        477, // mmap
        478, // lseek
        487, // cpuset_getaffinity
        489, // faccessat
        499, // openat
        500, // readlinkat
        551, // fstat
        552, // fstatat
        554, // getdirentries
        555, // statfs
        556, // fstatfs
        557, // getfsstat
        563, // getrandom
        570, // sysctlbyname
        573, // sigfastblock
    ];

    pub(super) fn main() -> i32 {
        let mut arguments = std::env::args_os().skip(1);
        let number = arguments.next().and_then(|n| n.to_str()?.parse::<u32>().ok());
        let (Some(number), Some(program)) = (number, arguments.next()) else {
            eprintln!("usage: conformance-stop N PROGRAM [ARGUMENT...]");
            return 2;
        };
        let mut command = Command::new(program);
        command.args(arguments);
        // SAFETY: ptrace(2) is a system call, which a forked child may make.
        unsafe { command.pre_exec(|| trace(libc::PT_TRACE_ME, 0, 0)) };
        let child = match command.spawn() {
            Ok(child) => child.id() as libc::pid_t,
            Err(e) => {
                eprintln!("conformance-stop: {e}");
                return 2;
            }
        };
        match follow(child, number) {
            Ok(code) => code,
            Err(e) => {
                eprintln!("conformance-stop: {e}");
                2
            }
        }
    }

    fn follow(child: libc::pid_t, number: u32) -> io::Result<i32> {
        let mut seen = 0;
        loop {
            let mut status = 0;
            // SAFETY: the status lives until the call returns.
            if unsafe { libc::waitpid(child, &raw mut status, 0) } == -1 {
                return Err(io::Error::last_os_error());
            }
            if libc::WIFEXITED(status) {
                return Ok(libc::WEXITSTATUS(status));
            }
            if libc::WIFSIGNALED(status) {
                return Ok(128 + libc::WTERMSIG(status));
            }
            let mut signal = libc::WSTOPSIG(status);
            if signal == libc::SIGTRAP {
                signal = 0;
                if let Some(call) = entered(child)?
                    && !LOOKS.contains(&call)
                {
                    seen += 1;
                    if seen == number {
                        eprintln!("killed before system call {call}");
                        trace(libc::PT_KILL, child, 0)?;
                        continue;
                    }
                }
            }
            trace(libc::PT_TO_SCE, child, signal)?;
        }
    }

    /// The system call that it is about to make, if that is why it stands still.
    fn entered(child: libc::pid_t) -> io::Result<Option<u32>> {
        // SAFETY: all-zero is a value of this struct of integers.
        let mut info: libc::ptrace_lwpinfo = unsafe { std::mem::zeroed() };
        let size = size_of_val(&info) as libc::c_int;
        // SAFETY: the kernel writes at most `size` bytes.
        if unsafe { libc::ptrace(libc::PT_LWPINFO, child, (&raw mut info).cast(), size) } == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok((info.pl_flags & libc::PL_FLAG_SCE != 0).then_some(info.pl_syscall_code))
    }

    fn trace(request: libc::c_int, pid: libc::pid_t, signal: libc::c_int) -> io::Result<()> {
        // SAFETY: address 1 is "where it stopped" (ptrace(2)); nothing is read or written.
        match unsafe { libc::ptrace(request, pid, std::ptr::without_provenance_mut(1), signal) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}
