//! The newcomer's key: made when there is none at all, and shown once.

use secrecy::ExposeSecret;

use crate::{
    admin::new_key::{self, KeyOrder, PLAY_MONEY},
    cli::output,
    keys::{Keys, Limits, Mode, UnsupportedParameters},
    ledger::Ledger,
};

/// Makes a test key on an account of its own and prints it with a line that works. (Replicas that meet on
/// an empty database may each make one; it is play money.)
pub(super) async fn print_if_there_is_none(
    keys: &Keys,
    ledger: &Ledger,
    url: &str,
) -> anyhow::Result<()> {
    if !keys.list(None).await?.is_empty() {
        return Ok(());
    }
    let order = KeyOrder {
        name: "first".to_owned(),
        mode: Mode::Test,
        account: None,
        credit: None,
        models: None,
        limits: Limits::NONE,
        allowed_ips: None,
        unsupported_parameters: UnsupportedParameters::Reject,
        expires_at: None,
    };
    let (_, secret) = new_key::create(ledger, keys, order).await?;
    let secret = secret.expose_secret();
    output::line(format!(
        r#"There was no API key yet, so here is a test key, shown only now:

    {secret}

It comes with {PLAY_MONEY} USD of play money, and the built-in sandbox paints for it. Try:

    curl {url}/v1/images/generations -H "Authorization: Bearer {secret}" -H "Content-Type: application/json" -d '{{"model": "dall-e-3", "prompt": "a lighthouse at dusk"}}'
"#
    ));
    Ok(())
}
