//! The OpenAI-compatible surface.
