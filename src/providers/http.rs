//! The shared HTTP client: sending, deadlines, size limits, redaction, mirrored result links.
