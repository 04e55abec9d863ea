//! The Stability adapter: v2beta's ultra, core, sd3 and inpaint (`contracts/stability.md`).
//!
//! A form goes out, the bytes of one picture come back and stream straight into the sink. Three pure parts
//! around that: [`request`] writes the form, [`answer`] judges the head before a byte is passed on,
//! [`error`] says what a refusal means. One call brings one picture; the gateway fans out.

mod answer;
mod error;
#[cfg(test)]
mod golden;
mod request;
mod settings;
#[cfg(test)]
mod tests;

use std::{fmt, num::NonZeroU8};

use futures_util::future::BoxFuture;

use self::{
    answer::Head,
    error::ErrorBody,
    request::{Source, unsayable},
    settings::Settings,
};
use super::{
    AccountReport, Call, Encoding, ErrorKind, PictureEvent, PictureSink, Provider, ProviderError,
    Report, Task,
    http::{Answer, Attempt, HttpClient},
    mask,
};
use crate::{clock::Clock, config::ProviderConfig};

/// A credit is 0.01 USD (contract, section 5); a picture costs 2 to 8 of them.
const LOW_CREDITS: f64 = 100.0;

/// What is left on our account.
#[derive(serde::Deserialize)]
struct Balance {
    credits: f64,
}

/// Stability AI, or a server that speaks its v2beta.
pub struct Stability {
    http: HttpClient,
}

impl Stability {
    /// The provider of a `[providers.NAME]` section.
    ///
    /// # Errors
    /// A sentence naming the key that is wrong or missing.
    pub fn new(
        name: &str,
        config: &ProviderConfig,
        max_picture_bytes: u64,
    ) -> Result<Self, String> {
        let Settings { base_url, headers } = Settings::read(config)?;
        Ok(Self {
            http: HttpClient::new(name, base_url, headers, config, max_picture_bytes)?,
        })
    }

    /// `GET /v1/user/balance` is free (contract, section 1).
    async fn ask_for_balance(&self) -> Result<AccountReport, ProviderError> {
        let answer = self.http.inspect(&["v1", "user", "balance"], None).await?;
        if answer.status != 200 {
            return Err(answer.refusal());
        }
        let balance: Option<Balance> = serde_json::from_slice(&answer.body).ok();
        let Some(Balance { credits }) = balance else {
            return Ok(answer.report("the key works"));
        };
        let warning = (credits < LOW_CREDITS)
            .then(|| "the balance is low: calls will be refused when it is used up".to_owned());
        Ok(AccountReport {
            warning,
            ..answer.report(format!("the key works; {credits} credits are left"))
        })
    }

    async fn paint(
        &self,
        call: &Call,
        sink: &mut dyn PictureSink,
    ) -> Result<Report, ProviderError> {
        let mut attempt = self.http.begin(call.deadline)?;
        let outcome = Self::converse(&mut attempt, call, sink).await;
        attempt.sign(outcome)
    }

    async fn converse(
        attempt: &mut Attempt<'_>,
        call: &Call,
        sink: &mut dyn PictureSink,
    ) -> Result<Report, ProviderError> {
        let source = Source::of(&call.task).await?;
        let request = request::write(
            &call.request,
            call.first,
            &source,
            &call.route.upstream_model,
            &call.route.translation,
        )?;
        let (content_type, body) = request.form.encode();
        let answer = attempt
            .post(
                &["v2beta", "stable-image", request.family, request.endpoint],
                &content_type,
                request.headers,
                body,
                NonZeroU8::MIN,
            )
            .await?;
        match answer::read_head(answer.status, &answer.headers) {
            Head::Picture => pass_on(attempt, answer, sink).await,
            Head::Words => {
                let text = answer.body.error_text(attempt).await;
                let now = Clock::system().now();
                let prompts = [
                    call.request.prompt.as_str(),
                    call.request.negative_prompt.as_deref().unwrap_or_default(),
                ];
                Err(ErrorBody::read(&text).into_error(
                    answer.status,
                    &answer.headers,
                    &prompts,
                    now,
                ))
            }
            Head::Nothing(why) => Err(why),
        }
    }
}

impl Source {
    /// What a task is painted from, its mask turned over.
    async fn of(task: &Task) -> Result<Self, ProviderError> {
        match task {
            Task::Generate => Ok(Self::Words),
            Task::Edit(inputs) => {
                let [image] = inputs.images.as_slice() else {
                    return Err(unsayable(
                        "image",
                        "this provider edits one picture at a time",
                    ));
                };
                Ok(match &inputs.mask {
                    Some(mask) => Self::Part {
                        image: image.clone(),
                        white: mask::white_where_transparent(mask).await?,
                    },
                    None => Self::Picture(image.clone()),
                })
            }
            Task::Vary(_) => Err(unsayable("model", "this provider makes no variations")),
        }
    }
}

/// The picture, on its way into the sink.
async fn pass_on(
    attempt: &mut Attempt<'_>,
    answer: Answer,
    sink: &mut dyn PictureSink,
) -> Result<Report, ProviderError> {
    let mut body = answer.body;
    let mut chunk = body.next(attempt).await?;
    if chunk.is_none() {
        return Err(ProviderError::new(
            ErrorKind::Malformed,
            "the provider's answer is empty",
        ));
    }
    attempt
        .deliver(sink, PictureEvent::Begin(Encoding::Raw))
        .await?;
    while let Some(bytes) = chunk {
        attempt.deliver(sink, PictureEvent::Data(bytes)).await?;
        chunk = body.next(attempt).await?;
    }
    attempt.deliver(sink, PictureEvent::End).await?;
    Ok(Report {
        announced: 1,
        ..Report::default()
    })
}

impl Provider for Stability {
    fn generate<'a>(
        &'a self,
        call: &'a Call,
        sink: &'a mut dyn PictureSink,
    ) -> BoxFuture<'a, Result<Report, ProviderError>> {
        Box::pin(self.paint(call, sink))
    }

    fn check_account(&self) -> BoxFuture<'_, Result<AccountReport, ProviderError>> {
        Box::pin(self.ask_for_balance())
    }

    fn in_flight(&self) -> usize {
        self.http.calls_in_flight()
    }
}

impl fmt::Debug for Stability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Stability")
            .field("name", &self.http.name())
            .field("base_url", &self.http.base_url().as_str())
            .finish_non_exhaustive()
    }
}
