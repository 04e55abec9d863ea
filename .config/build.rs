//! Compiles again when a migration is added: `sqlx::migrate!` itself only watches the files it has seen.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
