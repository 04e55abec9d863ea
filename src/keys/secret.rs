//! Secrets: made, shown once, hashed, compared.
