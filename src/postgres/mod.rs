//! Pool, migrations, and the private server.
