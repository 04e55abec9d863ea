//! Parses arguments, nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    easel::cli::main(std::env::args_os())
}
