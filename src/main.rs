//! Parses arguments, nothing else.

fn main() {}
