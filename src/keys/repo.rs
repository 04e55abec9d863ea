//! All SQL of the keys.
