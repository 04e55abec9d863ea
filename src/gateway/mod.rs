//! The one way a request goes: admit, hold, attempt, deliver, settle.
