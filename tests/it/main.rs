//! The integration tests: one binary, one file per behaviour.
//!
//! Every test starts the real `easel` with a database and a fake upstream of its own and speaks to it
//! as a user does; see [`support`]. Start them with `tests/run`, which brings up what they need.
#![cfg(test)]

mod generations;
mod support;
mod the_fake;
