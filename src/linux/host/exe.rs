//! Protecting potrun's own file from the containers it starts (CVE-2019-5736).
//!
//! While the first process is in the container and still potrun, `/proc/PID/exe` leads to potrun's file: root inside
//! could open it for writing. So whoever enters a container runs from a read-only mount of the file, which costs one
//! exec and copies nothing.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, access};

use crate::linux::mount::ATTR_RDONLY;

use super::{open_path, sys};

/// Goes on as the same program from a read-only mount of its file, unless the file is out of reach already. Returns
/// where nothing needs to be done.
///
/// # Errors
/// The file can be written to by who is root inside, and no read-only mount of it can be made.
pub fn protect() -> io::Result<()> {
    let path = "/proc/self/exe";
    if statvfs(path)?.flags().contains(FsFlags::ST_RDONLY) || sealed(path) {
        return Ok(());
    }
    // Root inside a user namespace is the caller outside: what the caller cannot write to is safe.
    if !nix::unistd::geteuid().is_root() && access(path, AccessFlags::W_OK).is_err() {
        return Ok(());
    }
    let file = open_path(path.as_ref())?;
    let image = match sys::clone_tree(file.as_raw_fd(), c"", false) {
        Ok(tree) => {
            sys::mount_setattr(tree.as_fd(), false, ATTR_RDONLY, 0, 0)?;
            tree
        }
        // Without CAP_SYS_ADMIN no mount can be made: a copy that nobody can change.
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => return copy().and_then(|copy| run(&copy)),
        Err(e) => return Err(e),
    };
    run(&image)
}

/// Whether the file is a [`copy`]: other files have no seals.
fn sealed(path: &str) -> bool {
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    let seals = std::fs::File::open(path).map(|file| fcntl(&file, FcntlArg::F_GET_SEALS));
    matches!(seals, Ok(Ok(bits)) if SealFlag::from_bits_truncate(bits).contains(SealFlag::F_SEAL_WRITE))
}

/// Becomes `image`, with the same arguments and environment.
fn run(image: &std::os::fd::OwnedFd) -> io::Result<()> {
    let args: Vec<CString> = std::env::args_os().map(|arg| CString::new(arg.into_vec())).collect::<Result<_, _>>()?;
    let variable = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())
    };
    let env: Vec<CString> = std::env::vars_os().map(variable).collect::<Result<_, _>>()?;
    Err(sys::exec_fd(image.as_fd(), &args, &env))
}

/// A sealed copy of the program in memory. It is on no read-only mount, so it is known by its seals.
fn copy() -> io::Result<std::os::fd::OwnedFd> {
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let seals = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    let fd = memfd_create(c"potrun", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut to = std::fs::File::from(fd);
    io::copy(&mut std::fs::File::open("/proc/self/exe")?, &mut to)?;
    fcntl(&to, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(to.into())
}

/// Marks what the caller left open as not for the container, but for the `preserve` descriptors from 3 on.
///
/// # Errors
/// close_range(2)'s.
pub fn close_on_exec(preserve: u32) -> io::Result<()> {
    sys::close_on_exec_from(preserve.saturating_add(3))
}
