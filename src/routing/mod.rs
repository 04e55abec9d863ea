//! Which route next: preferences and health. Pure; the clock is passed in.
