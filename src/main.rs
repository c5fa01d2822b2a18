//! See `src/lib.rs`, and `README.md` before that.

use std::process::ExitCode;

fn main() -> ExitCode {
    potrun::cli::main()
}
