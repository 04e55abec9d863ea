//! The Google adapters: the Gemini API with a key of AI Studio (`adapter = "google"`) and the same models
//! in Google Cloud with a service account (`adapter = "vertex"`); `contracts/google-imagen.md`.
//!
//! The two differ in address and key only. Both speak two protocols, and which one a route speaks stands in
//! its upstream name, as in Google's own URLs: `imagen-4.0-generate-001:predict`, and `:generateContent`
//! when there is none. Pure parts around one conversation, as everywhere: [`request`] writes, [`answer`]
//! reads as it arrives, [`verdict`] says what an answer without pictures means and [`error`] what an error
//! does; [`account`] keeps the access token.

mod account;
mod answer;
mod error;
#[cfg(test)]
mod golden;
mod key_file;
mod request;
mod settings;
#[cfg(test)]
mod tests;
mod usage;
mod verdict;

use std::{fmt, num::NonZeroU8, time::Duration};

use futures_util::future::BoxFuture;
use reqwest::header::HeaderMap;
use tokio::time::Instant;

use self::{
    account::Account,
    answer::{AnswerError, AnswerReader, Said},
    error::ErrorBody,
    settings::Settings,
};
use super::{
    AccountReport, Call, ErrorKind, PictureEvent, PictureSink, Provider, ProviderError, Report,
    http::{Answer, Attempt, HttpClient, Payload},
};
use crate::{clock::Clock, config::ProviderConfig};

/// Drafts come in the same answer (contract, 2.3), so it may weigh more than the pictures asked for.
const MOST_DRAFTS: u8 = 3;

/// How long an access token may take when somebody only wants to know whether there is one.
const CHECK_PATIENCE: Duration = Duration::from_secs(20);

/// Google's pictures, by one of the two ways in.
pub struct Google {
    http: HttpClient,
    /// What stands between `base_url` and the model's name.
    path: Vec<String>,
    /// `None`: the key goes with every call.
    account: Option<Account>,
}

/// How a model is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// Gemini's image models (contract, section 2).
    GenerateContent,
    /// Imagen (contract, section 3).
    Predict,
}

impl Protocol {
    /// The model and the protocol of a route's upstream name.
    fn of(upstream_model: &str) -> Result<(&str, Self), ProviderError> {
        match upstream_model.rsplit_once(':') {
            None => Ok((upstream_model, Self::GenerateContent)),
            Some((model, "generateContent")) => Ok((model, Self::GenerateContent)),
            Some((model, "predict")) => Ok((model, Self::Predict)),
            Some(_) => Err(ProviderError::new(
                ErrorKind::ModelUnavailable,
                "the route's upstream_model ends in neither ':generateContent' nor ':predict'",
            )),
        }
    }

    fn method(self) -> &'static str {
        match self {
            Self::GenerateContent => "generateContent",
            Self::Predict => "predict",
        }
    }
}

impl Google {
    /// The provider of a section with `adapter = "google"`.
    ///
    /// # Errors
    /// A sentence naming the key that is wrong.
    pub fn with_key(
        name: &str,
        config: &ProviderConfig,
        max_picture_bytes: u64,
    ) -> Result<Self, String> {
        Self::new(name, config, Settings::with_key(config)?, max_picture_bytes)
    }

    /// The provider of a section with `adapter = "vertex"`.
    ///
    /// # Errors
    /// A sentence naming the key that is wrong.
    pub fn with_account(
        name: &str,
        config: &ProviderConfig,
        max_picture_bytes: u64,
    ) -> Result<Self, String> {
        Self::new(
            name,
            config,
            Settings::with_account(name, config)?,
            max_picture_bytes,
        )
    }

    fn new(
        name: &str,
        config: &ProviderConfig,
        settings: Settings,
        max_picture_bytes: u64,
    ) -> Result<Self, String> {
        let Settings {
            base_url,
            path,
            headers,
            account,
        } = settings;
        Ok(Self {
            http: HttpClient::new(name, &base_url, headers, config, max_picture_bytes)?,
            path,
            account,
        })
    }

    /// With a key: one model of the list, which is free. With a service account: an access token, which is free
    /// as well; whether the project has the API switched on, only a call tells.
    async fn ask_for_access(&self) -> Result<AccountReport, ProviderError> {
        if let Some(account) = &self.account {
            account.token(Instant::now() + CHECK_PATIENCE).await?;
            return Ok(AccountReport {
                found: "the service account signs in".to_owned(),
                warning: None,
                clock_ahead: None,
            });
        }
        let answer = self.http.inspect(&["models"], Some("pageSize=1")).await?;
        if answer.status == 200 {
            return Ok(answer.report("the key works"));
        }
        // A wrong key is 400 here, and only the words tell.
        let now = Clock::system().now();
        Err(ErrorBody::read(&answer.body).into_error(answer.status, &answer.headers, "", now))
    }

    async fn paint(
        &self,
        call: &Call,
        sink: &mut dyn PictureSink,
    ) -> Result<Report, ProviderError> {
        let (model, protocol) = Protocol::of(&call.route.upstream_model)?;
        let body = request::payload(
            protocol,
            &call.request,
            &call.task,
            call.n,
            &call.route.translation,
        )?;
        let mut attempt = self.http.begin(call.deadline)?;
        let outcome = self.converse(&mut attempt, (model, protocol), body, call, sink);
        let outcome = outcome.await;
        attempt.sign(outcome)
    }

    async fn converse(
        &self,
        attempt: &mut Attempt<'_>,
        (model, protocol): (&str, Protocol),
        body: Payload,
        call: &Call,
        sink: &mut dyn PictureSink,
    ) -> Result<Report, ProviderError> {
        let once = self.exchange(attempt, model, protocol, body.clone(), call, sink);
        let said = match once.await? {
            Brought::Pictures(report) => return Ok(*report),
            Brought::Nothing(said) => said,
        };
        if !verdict::is_worth_another(protocol, &said) {
            return Err(verdict::of_nothing(protocol, &said, &call.request.prompt));
        }
        tracing::info!(
            upstream.model = model,
            "an answer without a picture; asking once more"
        );
        let again = self.exchange(attempt, model, protocol, body, call, sink);
        let error = match again.await {
            Ok(Brought::Pictures(report)) => return Ok(*report),
            Ok(Brought::Nothing(said)) => {
                verdict::of_nothing(protocol, &said, &call.request.prompt)
            }
            Err(error) => error,
        };
        // However this ended, the first answer may have cost something (contract, section 5).
        Err(ProviderError {
            maybe_charged: true,
            ..error
        })
    }

    /// One request and its answer.
    async fn exchange(
        &self,
        attempt: &mut Attempt<'_>,
        model: &str,
        protocol: Protocol,
        body: Payload,
        call: &Call,
        sink: &mut dyn PictureSink,
    ) -> Result<Brought, ProviderError> {
        let answer = self.ask(attempt, model, protocol, body, call.n).await?;
        if answer.status != 200 {
            let text = answer.body.error_text(attempt).await;
            return Err(ErrorBody::read(&text).into_error(
                answer.status,
                &answer.headers,
                &call.request.prompt,
                Clock::system().now(),
            ));
        }
        take(attempt, answer, call, sink).await
    }

    /// Sends the request. A token that Google no longer takes is replaced once: refused at the door,
    /// nothing was painted, and nothing is charged.
    async fn ask(
        &self,
        attempt: &Attempt<'_>,
        model: &str,
        protocol: Protocol,
        body: Payload,
        n: NonZeroU8,
    ) -> Result<Answer, ProviderError> {
        let last = format!("{model}:{}", protocol.method());
        let path: Vec<&str> = self
            .path
            .iter()
            .map(String::as_str)
            .chain([&*last])
            .collect();
        let pictures = n.saturating_add(MOST_DRAFTS);
        let send = |headers, body| attempt.post(&path, "application/json", headers, body, pictures);
        let Some(account) = &self.account else {
            return send(HeaderMap::new(), body).await;
        };
        let token = account.token(attempt.ends_at()).await?;
        let answer = send(token.headers(), body.clone()).await?;
        if answer.status != 401 {
            return Ok(answer);
        }
        answer.body.let_go().await;
        account.forget(&token);
        let token = account.token(attempt.ends_at()).await?;
        send(token.headers(), body).await
    }
}

/// What an answer with status 200 brought.
enum Brought {
    /// At least one picture.
    Pictures(Box<Report>),
    /// None, and what it said instead.
    Nothing(Box<Said>),
}

/// Hands the pictures of an answer to the sink as they come.
async fn take(
    attempt: &mut Attempt<'_>,
    answer: Answer,
    call: &Call,
    sink: &mut dyn PictureSink,
) -> Result<Brought, ProviderError> {
    let mut body = answer.body;
    let mut reader = AnswerReader::new(call.n);
    let mut taken = 0_usize;
    while let Some(chunk) = body.next(attempt).await? {
        reader.push(chunk);
        while let Some(event) = reader.next().map_err(unreadable)? {
            let ends = matches!(event, PictureEvent::End);
            attempt.deliver(sink, event).await?;
            taken += usize::from(ends);
        }
        if reader.is_done() {
            break;
        }
    }
    if !reader.is_done() {
        return Err(if reader.is_blank() {
            ProviderError::new(ErrorKind::Malformed, "the provider's answer is empty")
        } else {
            ProviderError::new(
                ErrorKind::Transport { sent: true },
                "the provider's answer broke off",
            )
        });
    }
    body.let_go().await;
    let (mut report, said) = reader.finish();
    if taken == 0 {
        return Ok(Brought::Nothing(Box::new(said)));
    }
    report.refused = verdict::of_less(&said, &call.request.prompt)
        .into_iter()
        .collect();
    Ok(Brought::Pictures(Box::new(report)))
}

impl Provider for Google {
    fn generate<'a>(
        &'a self,
        call: &'a Call,
        sink: &'a mut dyn PictureSink,
    ) -> BoxFuture<'a, Result<Report, ProviderError>> {
        Box::pin(self.paint(call, sink))
    }

    /// Behind the bytes may stand that they were a thought's.
    fn doubts_pictures(&self) -> bool {
        true
    }

    fn check_account(&self) -> BoxFuture<'_, Result<AccountReport, ProviderError>> {
        Box::pin(self.ask_for_access())
    }

    fn in_flight(&self) -> usize {
        self.http.calls_in_flight()
    }
}

impl fmt::Debug for Google {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Google")
            .field("name", &self.http.name())
            .field("base_url", &self.http.base_url().as_str())
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

fn unreadable(error: AnswerError) -> ProviderError {
    ProviderError::new(
        ErrorKind::Malformed,
        format!("the provider's answer cannot be read: {error}"),
    )
}
