//! Secrets that every replica must agree on, made by the first that asks for them.

use rand::Rng;
use secrecy::SecretSlice;
use sqlx::PgPool;

use super::PostgresError;

/// The secret of this name, 32 random bytes; made when there is none yet. Every replica gets the same.
///
/// # Errors
/// [`PostgresError::Statement`].
pub async fn secret(pool: &PgPool, name: &str) -> Result<SecretSlice<u8>, PostgresError> {
    let mut proposal = [0_u8; 32];
    rand::rng().fill_bytes(&mut proposal);
    // Two statements: the insert of a replica that lost the race would return nothing.
    let statement = |source| PostgresError::Statement {
        action: "read a secret from the database",
        source,
    };
    sqlx::query!(
        "insert into secrets (name, value) values ($1, $2) on conflict (name) do nothing",
        name,
        proposal.as_slice(),
    )
    .execute(pool)
    .await
    .map_err(statement)?;
    sqlx::query_scalar!("select value from secrets where name = $1", name)
        .fetch_one(pool)
        .await
        .map(SecretSlice::from)
        .map_err(statement)
}
