//! Protecting potrun's own file from the containers it starts.

/// There is no way to it from inside: nothing of the jail is run or traced by potrun, and procfs(5) leads to no file
/// that is not in the jail.
///
/// # Errors
/// None.
pub fn protect() -> std::io::Result<()> {
    Ok(())
}

/// Marks what the caller left open as not for the container, but for the `preserve` descriptors from 3 on.
///
/// # Errors
/// close_range(2)'s.
pub fn close_on_exec(preserve: u32) -> std::io::Result<()> {
    super::sys::close_range(preserve.saturating_add(3), u32::MAX, super::sys::CLOSE_RANGE_CLOEXEC)
}
