//! Settlement: what arrived is charged, the rest of the hold is released, and only then is the caller
//! answered (I5, I6). A settlement that cannot reach the books is repeated until it does.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    GatewayError, GatewaySettings, Rooms, UpstreamFailure,
    admit::{Admission, Candidacy},
    attempt::{self, ServedCall, ShownDrafts, Work, WorkEnd},
    order::{DeliveredPicture, FailedPicture, Generation, Times, Usage},
    relay::Outlet,
    replay, upstream_code,
};
use crate::{
    catalog::{
        Charge, Delivered, ImageSize, OutputFormat, PriceError, ResponseFormat, Route, SizeChoice,
        Status, TokenUsage,
    },
    faults::{self, Point},
    images::StoredImage,
    ledger::{
        self, CapturedDrafts, Ending, Hold, Ledger, LedgerError, NewHold, Picture, Settlement,
    },
    money::NanoUsd,
    providers::{ErrorKind, ProviderError, Report},
    telemetry::metrics::metrics,
};

/// How long a caller waits for a settlement that does not get through before being told so.
const PATIENCE: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How many times the tokens that a picture can take a report may name, and be taken for a bound of ours that is
/// wrong rather than for nonsense.
const MOST_BELIEVED_TIMES: u64 = 100;
/// A bound of fewer tokens than this is no measure.
const LEAST_BELIEVED_TOKENS: u64 = 10_000;

/// What the caller will be told once the settlement is committed.
pub(super) type Outcome = Result<Generation, GatewayError>;

/// Turns what the attempts brought into a settlement and the answer that goes with it.
pub(super) fn close(
    rooms: &Rooms,
    settings: &GatewaySettings,
    admission: &Admission,
    hold: Hold,
    work: Work<'_>,
) -> (Settlement, Outcome) {
    let Work { attempts, end } = work;
    let summary = summarise(&attempts);
    let served = match end {
        WorkEnd::Served { by, calls } => {
            let captured = capture(rooms, settings, admission, &hold, by, calls);
            let captured = captured.map(|(ending, generation)| {
                let attempts = summary;
                (
                    ending,
                    Generation {
                        attempts,
                        ..generation
                    },
                )
            });
            captured.map_err(|error| (error, None))
        }
        WorkEnd::Failed {
            provider,
            error,
            is_unknown,
            drafts,
        } => {
            let model = &admission.model;
            let is_a_name = |route: &Arc<Route>| rooms.catalog.leads_to_the_living(route);
            let is_gone = is_unknown && !model.routes.iter().any(is_a_name);
            let retired_on = match model.status {
                Status::Retired { shutdown } if is_gone => Some(shutdown),
                Status::Retired { .. } | Status::Deprecated { .. } | Status::Active => None,
            };
            let drafts = drafts.and_then(|drafts| charge_drafts(admission, &hold, drafts));
            let failure = UpstreamFailure {
                generation: admission.generation,
                attempts: summary,
                provider: provider.to_owned(),
                model: model.id.clone(),
                retired_on,
                error: *error,
                drafts: drafts.as_ref().map(|drafts| Usage {
                    output_image_tokens: drafts.output_tokens,
                    cost: drafts.cost,
                    ..Usage::default()
                }),
                is_replayed: false,
                times: None,
            };
            Err((GatewayError::Upstream(Box::new(failure)), drafts))
        }
    };
    let (ending, outcome) = match served {
        Ok((ending, generation)) => (ending, Ok(generation)),
        Err((error, drafts)) => (end_without_pictures(&error, drafts), Err(error)),
    };
    let settlement = Settlement {
        hold,
        ending,
        attempts,
        replay: replay::of(admission, &outcome),
    };
    (settlement, outcome)
}

/// Makes the pictures outlive a crash of the machine when their caller has left without them: what is charged
/// must be there to be fetched (I7). A process that is out of time leaves them on their way: they are on its disk, and
/// the settlement must not wait for a bucket.
pub(super) async fn secure(rooms: &Rooms, work: &Work<'_>, outlet: &Outlet) {
    let WorkEnd::Served { calls, .. } = &work.end else {
        return;
    };
    if outlet.is_listening() {
        return;
    }
    tokio::select! {
        () = make_durable(rooms, calls) => {}
        () = outlet.out_of_time() => {
            tracing::warn!("pictures whose client had left were not durable yet when the time was over");
        }
    }
}

async fn make_durable(rooms: &Rooms, calls: &[ServedCall]) {
    let copies = calls.iter().filter(|call| call.are_copies);
    for (stored, _) in copies.flat_map(|call| &call.pictures) {
        if !stored.is_kept {
            continue;
        }
        let done = rooms.store.make_durable(stored.id, stored.info.format);
        if let Err(error) = done.await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a picture whose client had left could not be made durable"
            );
        }
    }
}

/// Writes the settlement, however long it takes, and answers once it is committed. `times` are those of the steps
/// before it.
pub(super) async fn settle(
    ledger: &Ledger,
    settlement: Settlement,
    outcome: Outcome,
    times: Times,
    outlet: &Outlet,
    count: impl FnOnce(&Settlement, Duration),
) {
    faults::reach(Point::BeforeSettlement);
    let settlement = Arc::new(settlement);
    let started = Instant::now();
    let mut outcome = Some(outcome);
    let mut pause = FIRST_PAUSE;
    let mut tries: u32 = 0;
    loop {
        tries = tries.saturating_add(1);
        let error = match ledger.settle_one(&settlement).await {
            Ok(()) => {
                faults::reach(Point::AfterSettlement);
                if tries > 1 {
                    tracing::info!(hold.id = %settlement.hold.id, tries, "a repeated settlement got through");
                }
                let settlement_time = started.elapsed();
                count(&settlement, settlement_time);
                if let Some(outcome) = outcome.take() {
                    let times = Times {
                        settlement: settlement_time,
                        ..times
                    };
                    outlet.conclude(timed(outcome, times));
                }
                return;
            }
            // Another replica took this one for dead and released the hold: the pictures are the
            // client's luck, but without a charge there is no answer (I6).
            Err(error @ LedgerError::HoldEnded(_)) => {
                metrics().settlement_lost();
                tracing::error!(hold.id = %settlement.hold.id, "the hold was swept before its settlement");
                return outlet.conclude(Err(error.into()));
            }
            Err(error @ (LedgerError::Database { .. } | LedgerError::Unconfirmed { .. })) => error,
            Err(error) => {
                metrics().settlement_lost();
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    hold.id = %settlement.hold.id,
                    "a settlement was refused; its hold stays open for the operator to look at"
                );
                return outlet.conclude(Err(error.into()));
            }
        };
        // While it lasts and not behind it, or nobody is told of an outage before it is over.
        metrics().settlement_repeated();
        // Once at a level that somebody reads: in an outage every generation in flight comes by here.
        if tries == 1 {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                hold.id = %settlement.hold.id,
                "a settlement did not get through and is repeated until it does"
            );
        } else {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                hold.id = %settlement.hold.id,
                tries,
                "a settlement did not get through again"
            );
        }
        // One failure may only be that this process stood still for so long.
        if tries > 1 && started.elapsed() >= PATIENCE {
            outlet.conclude(Err(GatewayError::Unsettled));
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The outcome, with how long it took.
fn timed(outcome: Outcome, times: Times) -> Outcome {
    match outcome {
        Ok(generation) => Ok(Generation {
            times: Some(times),
            ..generation
        }),
        Err(GatewayError::Upstream(mut failure)) => {
            failure.times = Some(times);
            Err(GatewayError::Upstream(failure))
        }
        Err(other) => Err(other),
    }
}

/// Releases a hold of which nobody knows whether it was placed, however long it takes to find out: a hold
/// without an owner would keep the caller's money for as long as this process lives.
pub(super) async fn take_back(ledger: &Ledger, new: &NewHold) {
    let mut pause = FIRST_PAUSE;
    loop {
        match ledger.take_back(new).await {
            Ok(placed) => {
                tracing::info!(hold.id = %new.id, placed, "an unconfirmed hold is out of the way");
                return;
            }
            Err(error @ (LedgerError::Database { .. } | LedgerError::Unconfirmed { .. })) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "an unconfirmed hold could not be looked for yet"
                );
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    hold.id = %new.id,
                    "an unconfirmed hold could not be released; the operator must look at it"
                );
                return;
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The settlement and the answer of a generation that brought at least one picture.
fn capture(
    rooms: &Rooms,
    settings: &GatewaySettings,
    admission: &Admission,
    hold: &Hold,
    by: &Candidacy,
    mut calls: Vec<ServedCall>,
) -> Result<(Ending, Generation), GatewayError> {
    disbelieve(admission, by, &mut calls);
    let mut charges = Vec::new();
    for call in calls.iter().filter(|call| !call.pictures.is_empty()) {
        charges.extend(
            price_or_estimate(admission, by, call)
                .map_err(|error| GatewayError::Internal(Box::new(error)))?,
        );
    }
    cap_at_hold(&mut charges, hold.amount);
    let cost = NanoUsd::sum(charges.iter().map(|charge| charge.cost))
        .map_err(|error| GatewayError::Internal(Box::new(error)))?;

    let usage = usage(&calls, cost);
    let failed = failed_pictures(&calls);
    let shortfall = calls
        .iter()
        .filter(|call| call.pictures.len() < usize::from(call.asked.get()))
        .find_map(|call| call.failure.as_ref())
        .map(for_the_books);
    let report = calls
        .iter()
        .find(|call| !call.pictures.is_empty())
        .map(|call| call.report.clone())
        .unwrap_or_default();
    // The pictures of one route are all copies, or none is.
    let are_copies = calls.iter().any(|call| call.are_copies);
    let arrived: Vec<(StoredImage, Option<String>)> =
        calls.into_iter().flat_map(|call| call.pictures).collect();

    let with_links = admission.request.response_format == ResponseFormat::Url;
    let kept_for = if with_links {
        settings.url_ttl.max(settings.replay_ttl)
    } else {
        settings.replay_ttl
    };
    let now = rooms.clock.now();
    let expires_at = now + settings.url_ttl;
    let pictures: Vec<Picture> = (0_u8..)
        .zip(&arrived)
        .zip(&charges)
        .map(|((index, (stored, revised_prompt)), charge)| Picture {
            id: stored.id,
            index,
            format: stored.info.format.extension().to_owned(),
            width: stored.info.size.map_or(0, |size| size.width.get()),
            height: stored.info.size.map_or(0, |size| size.height.get()),
            size_bytes: stored.size_bytes,
            upstream_cost: charge.upstream_cost,
            cost: charge.cost,
            revised_prompt: revised_prompt.clone(),
            kept_for: if stored.is_kept {
                kept_for
            } else {
                Duration::ZERO
            },
        })
        .collect();
    let copies = arrived
        .iter()
        .filter(|(stored, _)| are_copies && stored.is_kept)
        .map(|(stored, _)| (stored.id, stored.info.format))
        .collect();
    let generation = Generation {
        id: admission.generation,
        created: admission.generation.created_at().timestamp(),
        // What really painted, where a route leads to another model than the one asked for.
        model: by
            .route
            .serves
            .as_ref()
            .unwrap_or(&admission.model.id)
            .clone(),
        provider: by.provider_name.clone(),
        size: common_size(&arrived).or(report.size),
        quality: report.quality,
        background: report.background,
        output_format: output_format(admission, &report, &arrived),
        pictures: arrived
            .into_iter()
            .map(|(stored, revised_prompt)| DeliveredPicture {
                id: stored.id,
                info: stored.info,
                size_bytes: stored.size_bytes,
                text: None,
                is_copy: are_copies && stored.is_kept,
                url: with_links.then(|| {
                    rooms
                        .links
                        .link(stored.id, stored.info.format, expires_at, now)
                }),
                revised_prompt,
            })
            .collect(),
        failed,
        usage,
        response_format: admission.request.response_format,
        dropped: admission.dropped.clone(),
        attempts: String::new(),
        is_replayed: false,
        undelivered: rooms.store.until_delivered(copies),
        times: None,
    };
    let ending = Ending::Captured {
        provider: by.provider_name.clone(),
        upstream_model: by.route.upstream_model.clone(),
        pictures,
        shortfall,
        input_tokens: usage.input_tokens(),
        output_tokens: usage.output_tokens(),
    };
    Ok((ending, generation))
}

/// `openai=rate_limited, reseller=ok`: what the caller may know of the upstream calls.
fn summarise(attempts: &[ledger::Attempt]) -> String {
    let calls: Vec<String> = attempts.iter().map(attempt::outcome).collect();
    calls.join(", ")
}

/// Forgets usage that is beyond belief: it would stand in the books as what we owe, and in the answer. The price
/// then falls back on what is known without a report.
fn disbelieve(admission: &Admission, by: &Candidacy, calls: &mut [ServedCall]) {
    let bound = by
        .route
        .price
        .usage_bound_from(&admission.request, &admission.input_images);
    // Where tokens are not charged they are told all the same.
    let expected = bound.ok().flatten().as_ref().map_or(0, tokens_of);
    let believed = expected
        .max(LEAST_BELIEVED_TOKENS)
        .saturating_mul(MOST_BELIEVED_TIMES);
    for call in calls {
        let pictures = u64::try_from(call.report.announced.max(1)).unwrap_or(u64::MAX);
        let reported = call.report.usage.as_ref().map_or(0, tokens_of);
        if reported > believed.saturating_mul(pictures) {
            tracing::warn!(
                reported.tokens = reported,
                expected.tokens = expected,
                provider.name = by.provider_name,
                upstream.model = by.route.upstream_model,
                "the provider reports a usage beyond belief; charged as if none had been reported"
            );
            call.report.usage = None;
        }
    }
}

fn tokens_of(usage: &TokenUsage) -> u64 {
    usage
        .input_text
        .saturating_add(usage.input_image)
        .saturating_add(usage.output_text)
        .saturating_add(usage.output_image)
}

/// What the pictures of one call cost. A reported usage that cannot be priced is not believed: pictures
/// that came are not free because a provider counts absurdly.
fn price_or_estimate(
    admission: &Admission,
    by: &Candidacy,
    call: &ServedCall,
) -> Result<Vec<Charge>, PriceError> {
    price(admission, by, call, call.report.usage.as_ref()).or_else(|error| {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the reported usage cannot be priced; charged as if none had been reported"
        );
        price(admission, by, call, None)
    })
}

fn price(
    admission: &Admission,
    by: &Candidacy,
    call: &ServedCall,
    usage: Option<&TokenUsage>,
) -> Result<Vec<Charge>, PriceError> {
    let one_pixel = ImageSize {
        width: NonZeroU32::MIN,
        height: NonZeroU32::MIN,
    };
    // A vector picture need not say its size; it is priced as what was asked for.
    let asked = match admission.request.size.value {
        SizeChoice::Exact(size) => size,
        SizeChoice::Auto | SizeChoice::Ratio(_) => one_pixel,
    };
    let sizes: Vec<ImageSize> = call
        .pictures
        .iter()
        .map(|(stored, _)| stored.info.size.unwrap_or(asked))
        .collect();
    let delivered = Delivered {
        sizes: &sizes,
        announced: call.report.announced.max(sizes.len()),
        usage,
        quality: call.report.quality,
        partial_images: call.drafts,
    };
    by.route.price.charges_from(
        &admission.request,
        &admission.input_images,
        &delivered,
        by.markup_basis_points,
    )
}

/// I4, whatever a provider reports: what is above the hold is ours to pay, and somebody must look.
fn cap_at_hold(charges: &mut [Charge], hold: NanoUsd) {
    // A sum beyond the countable range is above every hold.
    let cost = NanoUsd::sum(charges.iter().map(|charge| charge.cost));
    if cost.as_ref().map_or(true, |cost| *cost > hold) {
        tracing::error!(
            cost_usd = ?cost,
            hold_usd = %hold,
            "the provider used more than the largest price that was held; the capture is capped"
        );
        Charge::cap(charges, hold);
    }
}

/// What drafts cost whose picture never came. They were delivered, and a provider that counts their tokens
/// bills them whether or not it finishes; the input of a call that brought nothing else is not charged.
fn charge_drafts(
    admission: &Admission,
    hold: &Hold,
    drafts: ShownDrafts<'_>,
) -> Option<CapturedDrafts> {
    let by = drafts.by;
    let (output_tokens, charge) =
        (by.route.price).drafts(&admission.request, drafts.count, by.markup_basis_points)?;
    let mut charges = [charge];
    cap_at_hold(&mut charges, hold.amount);
    let [charge] = charges;
    Some(CapturedDrafts {
        provider: by.provider_name.clone(),
        upstream_model: by.route.upstream_model.clone(),
        count: u8::try_from(drafts.count).unwrap_or(u8::MAX),
        upstream_cost: charge.upstream_cost,
        cost: charge.cost,
        output_tokens,
    })
}

fn end_without_pictures(error: &GatewayError, drafts: Option<CapturedDrafts>) -> Ending {
    let (error_code, error_message) = match error {
        GatewayError::Upstream(failure) => {
            let (_, message) = for_the_books(&failure.error);
            (failure.code().to_owned(), message)
        }
        other => ("internal_error".to_owned(), other.to_string()),
    };
    match drafts {
        Some(drafts) => Ending::OnlyDrafts {
            drafts,
            error_code,
            error_message,
        },
        None => Ending::Released {
            error_code,
            error_message,
        },
    }
}

/// A failure's code and message without the provider's words, which may be about the prompt.
fn for_the_books(error: &ProviderError) -> (String, String) {
    let message = match error.kind {
        ErrorKind::InvalidRequest | ErrorKind::ContentRefused => "the provider refused the request",
        _ => &error.message,
    };
    (upstream_code(error).to_owned(), message.to_owned())
}

fn usage(calls: &[ServedCall], cost: NanoUsd) -> Usage {
    let mut total = TokenUsage::default();
    let charged = calls.iter().filter(|call| !call.pictures.is_empty());
    for usage in charged.filter_map(|call| call.report.usage.as_ref()) {
        total.input_text = total.input_text.saturating_add(usage.input_text);
        total.input_image = total.input_image.saturating_add(usage.input_image);
        total.output_text = total.output_text.saturating_add(usage.output_text);
        total.output_image = total.output_image.saturating_add(usage.output_image);
    }
    Usage {
        input_text_tokens: total.input_text,
        input_image_tokens: total.input_image,
        output_text_tokens: total.output_text,
        output_image_tokens: total.output_image,
        cost,
    }
}

/// One failure for each picture that was asked for and did not arrive; they stand behind those that did.
fn failed_pictures(calls: &[ServedCall]) -> Vec<FailedPicture> {
    let arrived: usize = calls.iter().map(|call| call.pictures.len()).sum();
    let errors = calls.iter().flat_map(|call| {
        let missing = usize::from(call.asked.get()).saturating_sub(call.pictures.len());
        call.failure.iter().cycle().take(missing)
    });
    errors
        .zip(arrived..)
        .map(|(error, place)| FailedPicture {
            index: u8::try_from(place).unwrap_or(u8::MAX),
            code: upstream_code(error).to_owned(),
            message: error.message.clone(),
        })
        .collect()
}

fn common_size(arrived: &[(StoredImage, Option<String>)]) -> Option<ImageSize> {
    let first = arrived.first()?.0.info.size?;
    arrived
        .iter()
        .all(|(stored, _)| stored.info.size == Some(first))
        .then_some(first)
}

/// Told from the bytes; only for models that let one choose, as `OpenAI` does.
fn output_format(
    admission: &Admission,
    report: &Report,
    arrived: &[(StoredImage, Option<String>)],
) -> Option<OutputFormat> {
    admission.request.output_format?;
    arrived
        .first()
        .and_then(|(stored, _)| stored.info.format.extension().parse().ok())
        .or(report.output_format)
}
