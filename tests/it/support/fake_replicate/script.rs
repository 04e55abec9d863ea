//! How a prediction at the fake goes, and how the fake misbehaves when told to.

use std::time::Duration;

use serde_json::{Value, json};

/// What becomes of one creation. Only one whose request was right gets here.
#[derive(Debug, Clone)]
pub(crate) enum Behaviour {
    /// It runs.
    Run(Script),
    /// Refused with this status and body.
    Refuse(u16, Value),
    /// Takes the request and never says a word. The prediction runs.
    Never,
    /// The head and this many bytes of the right answer, with outputs of this shape, then the connection
    /// breaks. The prediction runs.
    CutAfter(usize, Shape),
    /// The right answer in pieces of so many bytes with a pause between them.
    Drip(usize, Duration),
    /// The head and this many bytes of the right answer, and then nothing for ever. The prediction runs.
    StallAfter(usize),
    /// A page with status 200.
    Page,
}

/// How a prediction goes.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// How long nothing happens.
    pub(crate) starting: Duration,
    /// How long it works.
    pub(crate) processing: Duration,
    pub(crate) end: End,
    pub(crate) shape: Shape,
    pub(crate) files: Files,
    /// What `status` still says although `output` is complete, in the answer that waited.
    pub(crate) lagging: Option<&'static str>,
    /// The HTTP status of a creation that was waited for to its end.
    pub(crate) created: u16,
    /// How many outputs are shown while it works.
    pub(crate) partial: usize,
    /// The longest that a creation waits, whatever `Prefer` says.
    pub(crate) patience: Duration,
    /// How many questions fail before one is answered.
    pub(crate) failing_questions: usize,
    /// How they fail.
    pub(crate) question_failure: (u16, Value),
}

/// How it ends.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// With so many outputs; `None`: as many as were asked for.
    Succeeded(Option<usize>),
    /// With `output: null`.
    Removed,
    Failed(&'static str),
    /// With the text in an object, as some proxies write it.
    FailedObject(&'static str),
    /// With an output that is neither a string nor a list.
    SucceededOddly,
    Canceled,
    Aborted,
}

/// How an output is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Links,
    DataUrls,
    /// The first a link, the others not.
    Mixed,
}

/// What is behind the links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    There,
    /// Every one is gone.
    Expired,
    /// The second one is gone.
    SecondExpired,
    /// Half of the file, then the connection breaks.
    Cut,
    /// In small pieces.
    Drip,
    /// On a host that nobody allowed.
    Elsewhere,
    /// There, behind a redirect on the same host.
    Moved,
    /// Behind a redirect to a host that nobody allowed.
    MovedElsewhere,
    /// The first time half of it, then the connection breaks.
    CutOnce,
    /// The first time busy.
    BusyOnce,
    /// The second one is cut, whenever it is fetched.
    SecondCut,
    /// A text.
    NoPicture,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            starting: Duration::ZERO,
            processing: Duration::ZERO,
            end: End::Succeeded(None),
            shape: Shape::Links,
            files: Files::There,
            lagging: None,
            created: 201,
            partial: 0,
            patience: Duration::from_mins(1),
            failing_questions: 0,
            question_failure: (503, json!({"detail": "temporarily unavailable"})),
        }
    }
}

impl Script {
    /// It ends in this way.
    pub(crate) fn ends(end: End) -> Behaviour {
        Behaviour::Run(Self {
            end,
            ..Self::default()
        })
    }

    pub(crate) fn shaped(shape: Shape) -> Behaviour {
        Behaviour::Run(Self {
            shape,
            ..Self::default()
        })
    }

    pub(crate) fn with_files(files: Files) -> Behaviour {
        Behaviour::Run(Self {
            files,
            ..Self::default()
        })
    }
}

pub(crate) const NSFW: &str =
    "NSFW content detected. Try running it again, or try a different prompt.";
pub(crate) const E005: &str = "The input or output was flagged as sensitive. Please try again with different inputs. (E005) (fake1)";
pub(crate) const UNKNOWN: &str =
    "Prediction failed for an unknown reason. It might work if you try again. (E1000)";
pub(crate) const NOT_STARTED: &str = "Timeout starting prediction (E6716)";
pub(crate) const OUT_OF_MEMORY: &str = "CUDA out of memory (E1001)";

impl Behaviour {
    /// The behaviour that a prompt asks for with one of the words of the contract's section 9, for clients
    /// that cannot reach into the fake.
    pub(super) fn named_in(prompt: &str) -> Option<Self> {
        let (_, rest) = prompt.split_once("[fake:")?;
        let (name, _) = rest.split_once(']')?;
        Some(match name {
            "NSFW" => Script::ends(End::Failed(NSFW)),
            "E005" => Script::ends(End::Failed(E005)),
            "OOM" => Script::ends(End::Failed(OUT_OF_MEMORY)),
            "PARTIAL" => Script::ends(End::Succeeded(Some(1))),
            "EMPTY" => Script::ends(End::Succeeded(Some(0))),
            "DATAURL" => Script::shaped(Shape::DataUrls),
            "SYNC_PROCESSING" => Self::Run(Script {
                lagging: Some("processing"),
                ..Script::default()
            }),
            "EXPIRED" => Script::with_files(Files::Expired),
            other => panic!("no behaviour is called {other}"),
        })
    }
}

/// 402, with the vendor's advice to buy.
pub(crate) fn insufficient_credit() -> (u16, Value) {
    (
        402,
        json!({"title": "Insufficient credit", "detail": "You have insufficient credit to run this model. Go to https://replicate.com/account/billing#billing to purchase credit. Once you purchase credit, please wait a few minutes before trying again.", "status": 402}),
    )
}

/// 429 of an account with little credit.
pub(crate) fn low_credit() -> (u16, Value) {
    (
        429,
        json!({"detail": "Request was throttled. Your rate limit for creating predictions is reduced to 6 requests per minute with a burst of 1 requests while you have less than $5.0 in credit. Your rate limit resets in ~9s.", "status": 429, "retry_after": 5}),
    )
}
