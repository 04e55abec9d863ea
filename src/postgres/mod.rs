//! Pool, migrations, and the private server.

pub mod private;
