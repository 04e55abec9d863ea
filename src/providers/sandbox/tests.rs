//! The adapter as the gateway uses it: calls for the catalog's models into a sink that keeps everything.

use std::{
    collections::BTreeSet,
    num::NonZeroU8,
    sync::{Arc, LazyLock},
    time::Duration,
};

use futures_util::future::{BoxFuture, join_all, ready};
use tokio::time::Instant;

use super::Sandbox;
use crate::{
    catalog::{
        Background, Catalog, Delivered, ImageRequest, ImageSize, Model, OutputFormat, Parameter,
        Params, Quality, SizeChoice, Unsupported, Value,
    },
    providers::{
        Call, Encoding, ErrorKind, PictureEvent, PictureSink, Provider, ProviderError, Report, Task,
    },
};

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::load(None).unwrap());

/// Keeps whole pictures, and checks that they come one after another.
#[derive(Default)]
struct Album {
    pictures: Vec<Vec<u8>>,
    /// How many pictures there were before each draft, and the draft's number.
    drafts: Vec<(usize, u8)>,
    draft: Vec<u8>,
    is_draft: bool,
    open: bool,
    /// Refuses everything.
    full: bool,
}

impl PictureSink for Album {
    fn accept(&mut self, event: PictureEvent) -> BoxFuture<'_, Result<(), ProviderError>> {
        if self.full {
            let error = ProviderError::new(ErrorKind::Storage, "the album is full");
            return Box::pin(ready(Err(error)));
        }
        match event {
            PictureEvent::Begin(encoding) => {
                assert_eq!(encoding, Encoding::Raw);
                assert!(!self.open, "a picture begins within a picture");
                self.open = true;
                self.is_draft = false;
                self.pictures.push(vec![]);
            }
            PictureEvent::Draft { index, encoding } => {
                assert_eq!(encoding, Encoding::Raw);
                assert!(!self.open, "a draft begins within a picture");
                self.open = true;
                self.is_draft = true;
                self.draft.clear();
                self.drafts.push((self.pictures.len(), index));
            }
            PictureEvent::Data(bytes) => {
                assert!(self.open && !bytes.is_empty() && bytes.len() <= super::CHUNK);
                if self.is_draft {
                    self.draft.extend_from_slice(&bytes);
                } else {
                    self.pictures.last_mut().unwrap().extend_from_slice(&bytes);
                }
            }
            PictureEvent::End => {
                assert!(self.open, "a picture ends that never began");
                self.open = false;
            }
            PictureEvent::About(about) => {
                assert!(!self.open && about.output_format.is_none_or(|_| about.size.is_some()));
            }
            PictureEvent::Perhaps(_) => panic!("the sandbox knows what it paints"),
            PictureEvent::Abandon => panic!("the sandbox abandons no picture"),
        }
        Box::pin(ready(Ok(())))
    }
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn model(name: &str) -> &'static Arc<Model> {
    CATALOG.find(name).unwrap()
}

/// What the rules of a model make of these parameters.
fn request(model: &Model, prompt: &str, more: &[(Parameter, Value)]) -> Option<ImageRequest> {
    let mut params = Params::from([(Parameter::Prompt, text(prompt))]);
    params.extend(more.iter().cloned());
    let checked = model.rules.check(&params, Unsupported::Reject);
    checked.ok().map(|(request, _)| request)
}

/// A call for every picture of a request.
fn call(name: &str, prompt: &str, more: &[(Parameter, Value)]) -> Call {
    let model = model(name);
    let request = request(model, prompt, more).expect("the rules refuse the test's request");
    Call {
        task: Task::Generate,
        n: request.n,
        request: Arc::new(request),
        first: 0,
        model: Arc::clone(model),
        route: Arc::clone(&model.routes[0]),
        deadline: Instant::now() + Duration::from_mins(1),
        may_be_stopped: false,
    }
}

fn sandbox() -> Sandbox {
    Sandbox::new(Duration::ZERO, Duration::from_mins(1))
}

async fn generate(call: &Call) -> (Result<Report, ProviderError>, Vec<Vec<u8>>) {
    let mut album = Album::default();
    let result = sandbox().generate(call, &mut album).await;
    assert!(!album.open, "the last picture never ended");
    (result, album.pictures)
}

#[tokio::test]
async fn drafts_come_before_each_picture_and_their_tokens_are_counted() {
    let stream = [
        (Parameter::Stream, Value::Flag(true)),
        (Parameter::PartialImages, Value::Integer(2)),
        (Parameter::N, Value::Integer(2)),
        (Parameter::Quality, text("low")),
        (Parameter::Size, text("1024x1024")),
    ];
    let call_streamed = call("gpt-image-1", "a fox", &stream);
    let mut album = Album::default();
    let report = sandbox().generate(&call_streamed, &mut album).await;
    assert_eq!(album.drafts, [(0, 0), (0, 1), (1, 0), (1, 1)]);
    assert_eq!(sides(&album.draft), (1024, 1024));
    assert_ne!(album.draft, album.pictures[1]);
    // 272 for the picture and 100 for each draft (contracts/openai-images.md, sections 1.1 and 10).
    let usage = report.unwrap().usage.unwrap();
    assert_eq!(usage.output_image, 2 * (272 + 2 * 100));
    // Who does not stream sees none and pays for none.
    let (report, _) = generate(&call("gpt-image-1", "a fox", &stream[1..])).await;
    assert_eq!(report.unwrap().usage.unwrap().output_image, 2 * 272);
}

fn sides(picture: &[u8]) -> (usize, usize) {
    let size = imagesize::blob_size(picture).unwrap();
    (size.width, size.height)
}

#[tokio::test]
async fn brings_as_many_different_pictures_as_asked() {
    let call = call(
        "dall-e-2",
        "a fox",
        &[
            (Parameter::N, Value::Integer(3)),
            (Parameter::Size, text("256x256")),
        ],
    );
    let (report, pictures) = generate(&call).await;
    let report = report.unwrap();
    assert_eq!(report.announced, 3);
    assert_eq!(report.size, ImageSize::new(256, 256));
    assert!(report.refused.is_empty());
    assert!(pictures.iter().all(|picture| sides(picture) == (256, 256)));
    assert_eq!(pictures.iter().collect::<BTreeSet<_>>().len(), 3);

    // A fan-out paints the same ones.
    let second = Call {
        first: 1,
        n: NonZeroU8::MIN,
        ..call
    };
    assert_eq!(generate(&second).await.1, pictures[1..2]);
}

#[tokio::test]
async fn says_what_auto_stood_for() {
    let (report, pictures) = generate(&call("gpt-image-1", "a fox", &[])).await;
    let report = report.unwrap();
    assert_eq!(report.size, ImageSize::new(1024, 1024));
    assert_eq!(report.quality, Some(Quality::Medium));
    assert_eq!(report.background, Some(Background::Opaque));
    assert_eq!(report.output_format, Some(OutputFormat::Png));
    assert_eq!(sides(&pictures[0]), (1024, 1024));

    let asked = [
        (Parameter::Size, text("1536x1024")),
        (Parameter::Quality, text("low")),
        (Parameter::Background, text("transparent")),
        (Parameter::OutputFormat, text("webp")),
    ];
    let (report, pictures) = generate(&call("gpt-image-1", "a fox", &asked)).await;
    let report = report.unwrap();
    assert_eq!(report.size, ImageSize::new(1536, 1024));
    assert_eq!(report.quality, Some(Quality::Low));
    assert_eq!(report.background, Some(Background::Transparent));
    assert_eq!(report.output_format, Some(OutputFormat::Webp));
    assert!(
        webp::Decoder::new(&pictures[0])
            .decode()
            .unwrap()
            .is_alpha()
    );

    let (report, _) = generate(&call("dall-e-3", "a fox", &[])).await;
    assert_eq!(report.unwrap().quality, Some(Quality::Standard));
}

#[tokio::test]
async fn paints_every_size_of_every_model() {
    let sizes = [
        "auto",
        "256x256",
        "512x512",
        "768x768",
        "1024x1024",
        "1024x1536",
        "1536x1024",
        "1024x1792",
        "1792x1024",
        "1344x768",
        "768x1344",
        "2048x2048",
        "2048x1152",
        "2560x1440",
        "2880x2880",
        "3840x2160",
        "2160x3840",
        "4096x4096",
    ];
    let mut painted = BTreeSet::new();
    for model in CATALOG.models() {
        let mut taken = 0;
        for size in sizes {
            let asked = [(Parameter::Size, text(size))];
            let Some(request) = request(model, "a fox", &asked) else {
                continue;
            };
            taken += 1;
            let call = Call {
                request: Arc::new(request),
                ..call(&model.id, "a fox", &[])
            };
            // The picture does not depend on the model otherwise: one of each size is enough.
            if painted.insert(size) {
                let (report, pictures) = generate(&call).await;
                let size = report.unwrap().size.unwrap();
                let expected = (size.width.get() as usize, size.height.get() as usize);
                assert_eq!(sides(&pictures[0]), expected);
            }
            assert!(super::size_of(&call).is_some(), "{} at {size}", model.id);
        }
        assert!(taken > 0, "{} takes none of the sizes", model.id);
    }
    assert!(painted.contains("3840x2160") && painted.contains("256x256"));
}

#[tokio::test]
async fn refuses_what_would_not_fit_into_memory() {
    for (width, height) in [(99_999, 1), (1, 16_384), (4097, 4096)] {
        let mut call = call("dall-e-2", "a fox", &[]);
        let mut request = ImageRequest::clone(&call.request);
        request.size.value = SizeChoice::Exact(ImageSize::new(width, height).unwrap());
        call.request = Arc::new(request);
        let error = generate(&call).await.0.unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidRequest);
        assert_eq!(error.param.as_deref(), Some("size"));
        assert!(
            error.message.contains(&format!("{width}x{height}")),
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn takes_its_time() {
    let sandbox = Sandbox::new(Duration::from_secs(5), Duration::from_mins(1));
    let call = call("dall-e-2", "a fox", &[(Parameter::Size, text("256x256"))]);
    let start = Instant::now();
    let mut album = Album::default();
    sandbox.generate(&call, &mut album).await.unwrap();
    let taken = start.elapsed();
    assert!((5_000..5_100).contains(&taken.as_millis()), "{taken:?}");
    assert_eq!(album.pictures.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn gives_up_at_the_deadline_and_at_its_own_timeout() {
    for (deadline, timeout) in [(3, 60), (60, 3)] {
        let sandbox = Sandbox::new(Duration::from_secs(30), Duration::from_secs(timeout));
        let mut call = call("dall-e-2", "a fox", &[]);
        call.deadline = Instant::now() + Duration::from_secs(deadline);
        let start = Instant::now();
        let mut album = Album::default();
        let error = sandbox.generate(&call, &mut album).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Timeout { sent: true });
        let taken = start.elapsed();
        assert!((3_000..3_100).contains(&taken.as_millis()), "{taken:?}");
        assert!(album.pictures.is_empty());
    }
}

#[tokio::test]
async fn fails_as_the_prompt_says() {
    let second = Some(Duration::from_secs(1));
    for (name, prompt, kind, code) in [
        (
            "dall-e-3",
            "x [sandbox:refuse]",
            ErrorKind::ContentRefused,
            Some("content_policy_violation"),
        ),
        (
            "gpt-image-1",
            "[sandbox:refuse] x",
            ErrorKind::ContentRefused,
            Some("moderation_blocked"),
        ),
        (
            "dall-e-3",
            "[sandbox:rate_limit]",
            ErrorKind::RateLimited {
                retry_after: second,
            },
            None,
        ),
        (
            "dall-e-3",
            "[sandbox:error]",
            ErrorKind::Overloaded { retry_after: None },
            None,
        ),
        (
            "dall-e-3",
            "[sandbox:timeout]",
            ErrorKind::Timeout { sent: true },
            None,
        ),
        (
            "dall-e-3",
            "[sandbox:timeout][sandbox:refuse]",
            ErrorKind::Timeout { sent: true },
            None,
        ),
        // Of one picture the last is the only one.
        (
            "dall-e-3",
            "[sandbox:partial]",
            ErrorKind::ContentRefused,
            Some("content_policy_violation"),
        ),
    ] {
        let (result, pictures) = generate(&call(name, prompt, &[])).await;
        let error = result.unwrap_err();
        assert_eq!(
            (error.kind, error.code.as_deref()),
            (kind, code),
            "{prompt}"
        );
        assert!(!error.maybe_charged, "{prompt}");
        assert!(pictures.is_empty());
    }
    for prompt in ["sandbox:refuse", "[sandbox:something]", "[SANDBOX:REFUSE]"] {
        let small = [(Parameter::Size, text("256x256"))];
        assert!(
            generate(&call("dall-e-2", prompt, &small)).await.0.is_ok(),
            "{prompt}"
        );
    }
}

#[tokio::test]
async fn a_partial_prompt_brings_one_picture_fewer() {
    let asked = [
        (Parameter::N, Value::Integer(3)),
        (Parameter::Size, text("256x256")),
    ];
    let call = call("dall-e-2", "[sandbox:partial]", &asked);
    let (report, pictures) = generate(&call).await;
    let report = report.unwrap();
    assert_eq!((report.announced, pictures.len()), (2, 2));
    assert_eq!(report.refused.len(), 1);
    assert_eq!(report.refused[0].kind, ErrorKind::ContentRefused);

    // However the request is divided among calls, it is its last picture that fails.
    for (first, fails) in [(0, false), (1, false), (2, true)] {
        let part = Call {
            first,
            n: NonZeroU8::MIN,
            ..call.clone()
        };
        assert_eq!(generate(&part).await.0.is_err(), fails, "{first}");
    }
}

#[tokio::test]
async fn a_full_sink_ends_the_call() {
    let mut album = Album {
        full: true,
        ..Album::default()
    };
    let call = call("dall-e-2", "a fox", &[(Parameter::Size, text("256x256"))]);
    let error = sandbox().generate(&call, &mut album).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Storage);
}

#[tokio::test]
async fn more_callers_than_painters_are_all_served() {
    let call = call("dall-e-2", "a fox", &[(Parameter::Size, text("256x256"))]);
    let sandbox = sandbox();
    let mut albums: Vec<Album> = (0..40).map(|_| Album::default()).collect();
    let calls = albums
        .iter_mut()
        .map(|album| sandbox.generate(&call, album));
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    assert!(albums.iter().all(|album| album.pictures.len() == 1));
}

#[tokio::test]
async fn reports_tokens_where_they_are_priced_and_never_more_than_is_held() {
    for model in CATALOG.models() {
        for prompt in ["a fox", &"狐 🦊 ".repeat(40)] {
            let call = call(&model.id, prompt, &[]);
            let price = &call.route.price;
            let largest = price.largest(&call.request, 0).unwrap();
            let (report, pictures) = generate(&call).await;
            let report = report.unwrap();
            let sizes = vec![report.size.unwrap(); pictures.len()];
            let delivered = Delivered {
                sizes: &sizes,
                announced: report.announced,
                usage: report.usage.as_ref(),
                quality: None,
                partial_images: 0,
            };
            let charges = price.charges(&call.request, &delivered, 0).unwrap();
            assert_eq!(charges.len(), 1);
            assert!(
                charges
                    .iter()
                    .map(|charge| charge.cost)
                    .all(|cost| cost <= largest)
            );
            let per_token = price.usage_bound(&call.request).unwrap().is_some();
            assert_eq!(report.usage.is_some(), per_token, "{}", model.id);
        }
    }
    let asked = [
        (Parameter::Size, text("1024x1024")),
        (Parameter::Quality, text("low")),
        (Parameter::N, Value::Integer(2)),
    ];
    let (report, _) = generate(&call("gpt-image-1", "twelve chars", &asked)).await;
    let usage = report.unwrap().usage.unwrap();
    // Two pictures of 272 tokens (contract, section 10); three tokens of text, six more a picture.
    assert_eq!((usage.output_image, usage.input_text), (544, 15));
}
