//! The sandbox: paints real pictures locally, without key or network.
//!
//! Newcomers see it first, test keys run every model through it, and our own tests lean on it. Its
//! pictures have the format, size and transparency that were asked for and show prompt, model and
//! size; the same request gives the same bytes. Prompts can ask it to fail: the words are in `directive`.
//!
//! Memory is bounded by painting only as many pictures at once as there are processors; a finished
//! file waits for its reader, an unencoded one never does.

mod canvas;
mod directive;
mod encode;
mod paint;
mod scene;
mod svg;
#[cfg(test)]
mod tests;
mod text;

use std::{sync::Arc, thread, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::{
    sync::Semaphore,
    task,
    time::{Instant, sleep, timeout_at},
};

use self::{directive::Directive, scene::Spec};
use super::{
    About, AccountReport, Call, Encoding, ErrorKind, PictureEvent, PictureSink, Provider,
    ProviderError, Report, Task,
};
use crate::{
    catalog::{Background, ImageRequest, ImageSize, OutputFormat, Quality, SizeChoice, TokenUsage},
    images::Upload,
};

/// The longest side we paint, in pixels: the longest that every format can carry (WebP's limit).
const MAX_SIDE: u32 = 16_383;
/// The largest picture we paint, as large as the sandbox's own model allows: 64 MiB of pixels.
const MAX_PIXELS: u64 = 4096 * 4096;
/// Pictures are handed on in pieces of this size, in bytes.
const CHUNK: usize = 64 * 1024;
/// The side of the squares in the first draft, in pixels; each draft halves it.
const COARSEST: usize = 64;

/// The adapter. Cloning is not needed: share it in an `Arc`, so that the bound on painters holds.
#[derive(Debug)]
pub struct Sandbox {
    delay: Duration,
    timeout: Duration,
    painters: Arc<Semaphore>,
}

impl Sandbox {
    /// A sandbox whose calls take at least `delay` and, reading of the pictures aside, at most `timeout`.
    /// The pictures of one call are thought of as painted side by side, so the delay counts once a call.
    pub fn new(delay: Duration, timeout: Duration) -> Self {
        let painters = thread::available_parallelism().map_or(1, usize::from);
        Self {
            delay,
            timeout,
            painters: Arc::new(Semaphore::new(painters)),
        }
    }

    async fn paint(
        &self,
        call: &Call,
        sink: &mut dyn PictureSink,
    ) -> Result<Report, ProviderError> {
        let request = &call.request;
        let directive = Directive::of(&request.prompt);
        let deadline = Instant::now()
            .checked_add(self.timeout)
            .map_or(call.deadline, |own| own.min(call.deadline));
        let drafts = drafts_of(call);
        // They share the time that the picture takes.
        let pause = self.delay / (u32::from(drafts) + 1);
        by(deadline, sleep(pause)).await?;
        if let Some(failure) = directive.and_then(|directive| directive.failure(request)) {
            return Err(failure);
        }
        let size = size_of(call).ok_or_else(|| {
            let asked = request.size.value;
            invalid(
                "size",
                format!("size {asked} is larger than the sandbox paints: at most {MAX_SIDE} pixels a side and {MAX_PIXELS} in all"),
            )
        })?;
        let mut report = Report {
            size: Some(size),
            quality: request
                .quality
                .map(|quality| resolve_quality(call, quality.value)),
            background: request.background.map(|background| match background.value {
                Background::Transparent => Background::Transparent,
                Background::Opaque | Background::Auto => Background::Opaque,
            }),
            output_format: request.output_format.map(|format| format.value),
            ..Report::default()
        };
        for offset in 0..call.n.get() {
            let index = call.first.saturating_add(offset);
            if directive.is_some_and(|directive| directive.withholds(index, request)) {
                report.refused.push(directive::refusal(request));
                continue;
            }
            let spec = spec_of(call, index, size, &report);
            for draft in 0..drafts {
                let mut spec = spec.clone();
                spec.coarseness = Some(COARSEST >> draft);
                let file = self.picture(spec, deadline).await?;
                let begin = PictureEvent::Draft {
                    index: draft,
                    encoding: Encoding::Raw,
                };
                hand_over(begin, file, sink).await?;
                sink.accept(PictureEvent::About(Box::new(about(&report))))
                    .await?;
                if offset == 0 {
                    by(deadline, sleep(pause)).await?;
                }
            }
            let file = self.picture(spec, deadline).await?;
            hand_over(PictureEvent::Begin(Encoding::Raw), file, sink).await?;
            sink.accept(PictureEvent::About(Box::new(about(&report))))
                .await?;
            report.announced += 1;
        }
        if report.announced == 0
            && let Some(refusal) = report.refused.pop()
        {
            return Err(refusal);
        }
        report.usage = usage_of(call, size, &report);
        Ok(report)
    }

    /// Paints one picture where it blocks nobody, when a painter is free.
    async fn picture(&self, spec: Spec, deadline: Instant) -> Result<Bytes, ProviderError> {
        let painter = by(deadline, Arc::clone(&self.painters).acquire_owned())
            .await?
            .map_err(|_| broken("the sandbox is closing"))?;
        let painting = task::spawn_blocking(move || {
            // Held until the work is done, also when nobody waits for it any more.
            let _painter = painter;
            encode::picture(&spec)
        });
        by(deadline, painting)
            .await?
            .map_err(|_| broken("the sandbox's painter broke"))?
            .map(Bytes::from)
            .map_err(|error| invalid("output_format", error.to_string()))
    }
}

impl Provider for Sandbox {
    fn can_stop(&self, _call: &Call) -> bool {
        true
    }

    fn check_account(&self) -> BoxFuture<'_, Result<AccountReport, ProviderError>> {
        Box::pin(std::future::ready(Ok(AccountReport {
            found: "paints on this machine, without a key".to_owned(),
            warning: None,
            clock_ahead: None,
        })))
    }

    fn generate<'a>(
        &'a self,
        call: &'a Call,
        sink: &'a mut dyn PictureSink,
    ) -> BoxFuture<'a, Result<Report, ProviderError>> {
        Box::pin(self.paint(call, sink))
    }
}

/// Waits for `work`, but not beyond the deadline.
async fn by<T>(deadline: Instant, work: impl Future<Output = T>) -> Result<T, ProviderError> {
    timeout_at(deadline, work).await.map_err(|_| {
        let mut error = ProviderError::new(
            ErrorKind::Timeout { sent: true },
            "the sandbox did not finish in time",
        );
        error.maybe_charged = false;
        error
    })
}

fn broken(message: &str) -> ProviderError {
    ProviderError::new(ErrorKind::Overloaded { retry_after: None }, message)
}

/// How many drafts come before each picture.
fn drafts_of(call: &Call) -> u8 {
    let asked = call.request.partial_images.map_or(0, |set| set.value);
    if call.request.stream && call.route.streams {
        asked
    } else {
        0
    }
}

fn about(report: &Report) -> About {
    About {
        size: report.size,
        quality: report.quality,
        background: report.background,
        output_format: report.output_format,
        ..About::default()
    }
}

async fn hand_over(
    begin: PictureEvent,
    mut file: Bytes,
    sink: &mut dyn PictureSink,
) -> Result<(), ProviderError> {
    sink.accept(begin).await?;
    while !file.is_empty() {
        let chunk = file.split_to(file.len().min(CHUNK));
        sink.accept(PictureEvent::Data(chunk)).await?;
    }
    sink.accept(PictureEvent::End).await
}

/// The size to paint; `auto` is a square, and a shape alone is painted as large as that. `None` when it is too large.
fn size_of(call: &Call) -> Option<ImageSize> {
    let size = match call.request.size.value {
        SizeChoice::Exact(size) => Some(size),
        SizeChoice::Auto => ImageSize::new(1024, 1024),
        SizeChoice::Ratio(ratio) => Some(ratio.of_pixels(1024 * 1024)),
    };
    size.filter(|size| size.width.get().max(size.height.get()) <= MAX_SIDE)
        .filter(|size| size.pixels() <= MAX_PIXELS)
}

fn invalid(param: &str, message: String) -> ProviderError {
    let mut error = ProviderError::new(ErrorKind::InvalidRequest, message);
    error.param = Some(param.to_owned());
    error
}

/// What `auto` stands for: DALL·E, which alone takes a style, knows `standard`; the others `medium`.
fn resolve_quality(call: &Call, asked: Quality) -> Quality {
    match asked {
        Quality::Auto if call.request.style.is_some() => Quality::Standard,
        Quality::Auto => Quality::Medium,
        Quality::Standard
        | Quality::Hd
        | Quality::Low
        | Quality::Medium
        | Quality::High
        | Quality::Xhigh
        | Quality::Max => asked,
    }
}

/// The tokens that a model priced per token would report: text at four characters a token and six more
/// a picture, pictures by the numbers the catalog knows beforehand. `None` where tokens do not matter.
fn usage_of(call: &Call, size: ImageSize, report: &Report) -> Option<TokenUsage> {
    let mut painted = ImageRequest::clone(&call.request);
    painted.size.value = SizeChoice::Exact(size);
    if drafts_of(call) == 0 {
        // No picture comes early, so none of these tokens were spent.
        painted.partial_images = None;
    }
    if let (Some(setting), Some(quality)) = (&mut painted.quality, report.quality) {
        setting.value = quality;
    }
    let inputs = input_sizes(&call.task);
    let price = &call.route.price;
    let each = price.usage_bound_from(&painted, &inputs).ok().flatten()?;
    let pictures = u64::try_from(report.announced).ok()?;
    let words = u64::try_from(painted.prompt.chars().count().div_ceil(4)).ok()?;
    Some(TokenUsage {
        input_text: words.saturating_add(pictures.saturating_mul(6)),
        input_image: each.input_image.saturating_mul(pictures),
        output_image: each.output_image.saturating_mul(pictures),
        ..TokenUsage::default()
    })
}

/// The sizes of the pictures to edit.
fn input_sizes(task: &Task) -> Vec<ImageSize> {
    let size = |upload: &Upload| upload.info().size;
    match task {
        Task::Generate => Vec::new(),
        Task::Edit(inputs) => inputs.images.iter().filter_map(size).collect(),
        Task::Vary(image) => size(image).into_iter().collect(),
    }
}

/// What came in, in words that the picture shows: `edit of 2 images (512x512, 640x480), masked`.
fn origin(task: &Task) -> Option<String> {
    let sizes = || {
        let sizes = input_sizes(task);
        let words: Vec<String> = sizes.iter().map(ToString::to_string).collect();
        words.join(", ")
    };
    match task {
        Task::Generate => None,
        Task::Edit(inputs) => {
            let images = match inputs.images.len() {
                1 => "1 image".to_owned(),
                count => format!("{count} images"),
            };
            let masked = if inputs.mask.is_some() {
                ", masked"
            } else {
                ""
            };
            Some(format!("edit of {images} ({}){masked}", sizes()))
        }
        Task::Vary(_) => Some(format!("variation of an image ({})", sizes())),
    }
}

/// Picture `index` of a call. Frames as `contracts/openai-images.md`, section 1.1, has them by default.
fn spec_of(call: &Call, index: u8, size: ImageSize, report: &Report) -> Spec {
    let request = &call.request;
    Spec {
        prompt: request.prompt.clone(),
        origin: origin(&call.task),
        model: call.model.id.clone(),
        index,
        of: request.n.get(),
        size,
        quality: report.quality,
        style: request.style.map(|style| style.value),
        transparent: report.background == Some(Background::Transparent),
        format: report.output_format.unwrap_or(OutputFormat::Png),
        compression: request.output_compression.map(|setting| setting.value),
        frame_count: request.frame_count.map_or(9, |setting| setting.value),
        frame_duration_ms: request
            .frame_duration_ms
            .map_or(200, |setting| setting.value),
        coarseness: None,
    }
}
