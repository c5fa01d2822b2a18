/*! The probe's system calls that have no safe wrapper, and its entry point. */

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, RawFd};
use std::sync::OnceLock;

/// The C entry point. Rust's own would ignore SIGPIPE and open missing standard streams before `run`, and so hide what
/// the runtime handed over.
// SAFETY: the program is `no_main`, so this is the only definition of `main`, and the signature is that of C.
#[unsafe(no_mangle)]
extern "C" fn main(argc: i32, argv: *const *const libc::c_char) -> i32 {
    let one = |n| {
        // SAFETY: C says that `argv` has `argc` pointers to strings, which live as long as the program.
        let text = unsafe { CStr::from_ptr(*argv.add(n)) };
        text.to_string_lossy().into_owned()
    };
    ARGS.get_or_init(|| (0..usize::try_from(argc).unwrap_or_default()).map(one).collect());
    crate::run()
}

static ARGS: OnceLock<Vec<String>> = OnceLock::new();

/// What the program was started with, and first its name. std does not know where it is not in `main`.
pub(crate) fn args() -> Vec<String> {
    ARGS.get().cloned().unwrap_or_default()
}

/// Rows and columns of the terminal on fd 0.
pub(crate) fn winsize() -> Option<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one `winsize` to the address, which is that of a live `winsize`.
    let ret = unsafe { libc::ioctl(0, libc::TIOCGWINSZ, &raw mut size) };
    (ret == 0).then_some((size.ws_row, size.ws_col))
}

/// A descriptor that was inherited, as a file.
pub(crate) fn inherited(fd: RawFd) -> io::Result<File> {
    // SAFETY: F_GETFD takes no pointer, and says whether the number is an open descriptor.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open (checked above), it is above the standard streams and was inherited, so nothing
    // else in this program owns it; each is asked for at most once.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// The serial number of the session keyring of this process (keyctl(2), `KEYCTL_GET_KEYRING_ID`).
#[cfg(target_os = "linux")]
pub(crate) fn session_keyring() -> std::io::Result<i64> {
    const KEYCTL_GET_KEYRING_ID: libc::c_int = 0;
    const KEY_SPEC_SESSION_KEYRING: libc::c_int = -3; // include/uapi/linux/keyctl.h
    // SAFETY: the call takes integers and touches no memory.
    let serial = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0) };
    if serial < 0 { Err(std::io::Error::last_os_error()) } else { Ok(serial) }
}

/// Makes a segment of System V shared memory (shmget(2)), and takes it away again.
#[cfg(target_os = "freebsd")]
pub(crate) fn shared_memory() -> io::Result<()> {
    // SAFETY: both calls take integers, and the second no buffer.
    unsafe {
        let id = libc::shmget(libc::IPC_PRIVATE, 4096, libc::IPC_CREAT | 0o600);
        if id < 0 || libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
