//! The `OpenAI` adapter, for `OpenAI` itself and for any server that speaks its dialect.
