//! A neutral request becomes a prediction (`contracts/replicate.md`, sections 2 and 7.2).
//!
//! Every model has an input schema of its own and refuses what is not in it, so only what the route's
//! translation names goes out. Pure.

use std::{num::NonZeroU8, time::Duration};

use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Map, Value, json};

use super::inputs::Handed;
use crate::{
    catalog::{ImageRequest, OutputFormat, Parameter, Route, Setting, SizeChoice},
    providers::{
        ErrorKind, ProviderError,
        http::{Payload, Pictures},
    },
};

/// The longest that `Prefer: wait` may ask for (section 2.1).
const MAX_WAIT: Duration = Duration::from_mins(1);
/// The answer of a create that waited still has to travel.
const TRAVEL: Duration = Duration::from_secs(2);
/// The least that `Cancel-After` may say (section 2.1).
const MIN_CANCEL_AFTER: Duration = Duration::from_secs(5);

/// Where a prediction is created, and with what.
pub(super) struct Create<'a> {
    /// Below the base URL.
    pub(super) path: Vec<&'a str>,
    pub(super) body: Payload,
}

/// The creation of a prediction that paints `n` pictures, the first of which is number `first` of the request,
/// from what was handed over, if anything.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] for what this model has no way to say (some sizes, a mask, a second picture),
/// [`ErrorKind::ModelUnavailable`] for an upstream model that is none.
pub(super) fn create<'a>(
    request: &ImageRequest,
    handed: &Handed,
    (first, n): (u8, NonZeroU8),
    route: &'a Route,
) -> Result<Create<'a>, ProviderError> {
    let mut pictures = Pictures::default();
    let mut input = input(request, handed, &mut pictures, n, route)?;
    if let Some(seed) = request.seed {
        let name = route.translation.name(Parameter::Seed).to_owned();
        input.insert(name, nth_seed(seed.value, first).into());
    }
    let model = route.upstream_model.as_str();
    let official = |path| (path, json!({ "input": input }));
    let (path, body) = match Runnable::of(model) {
        Some(Runnable::Official { owner, name }) => {
            official(vec!["models", owner, name, "predictions"])
        }
        Some(Runnable::Deployment { owner, name }) => {
            official(vec!["deployments", owner, name, "predictions"])
        }
        Some(Runnable::Version) => (
            vec!["predictions"],
            json!({ "version": model, "input": input }),
        ),
        None => {
            return Err(ProviderError::new(
                ErrorKind::ModelUnavailable,
                format!(
                    "upstream_model '{model}' is none of OWNER/NAME, OWNER/NAME:VERSION, VERSION and deployments/OWNER/NAME"
                ),
            ));
        }
    };
    Ok(Create {
        path,
        body: pictures.payload(&body),
    })
}

/// What can be run, each in a place of its own (section 2).
enum Runnable<'a> {
    /// Billed per output.
    Official { owner: &'a str, name: &'a str },
    /// The operator's own, billed by the second.
    Deployment { owner: &'a str, name: &'a str },
    /// Of anybody's model, billed by the second.
    Version,
}

impl<'a> Runnable<'a> {
    fn of(model: &'a str) -> Option<Self> {
        let is_hash = model.len() == 64 && model.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hash || model.contains(':') {
            return Some(Self::Version);
        }
        let parts = model.split('/').collect::<Vec<_>>();
        if !parts.iter().all(|part| is_segment(part)) {
            return None;
        }
        match parts[..] {
            [owner, name] => Some(Self::Official { owner, name }),
            ["deployments", owner, name] => Some(Self::Deployment { owner, name }),
            _ => None,
        }
    }
}

/// Whether it is one of the models that are billed per output: a prediction without any costs nothing
/// (section 5).
pub(super) fn is_official(route: &Route) -> bool {
    let runnable = Runnable::of(&route.upstream_model);
    matches!(runnable, Some(Runnable::Official { .. }))
}

/// Whether it can stand alone between two slashes.
fn is_segment(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('.')
}

/// `Prefer` and `Cancel-After` of a call that ends in `time_left`. Without `wait` the prediction's id is
/// answered at once, so that it can be cancelled while it runs.
pub(super) fn headers(time_left: Duration, wait: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // Rounded up: our own clock ends the call, theirs the work that nobody will fetch.
    let until = (time_left + Duration::from_millis(999)).max(MIN_CANCEL_AFTER);
    headers.insert("cancel-after", seconds("", until, "s"));
    if wait {
        let patience = time_left.saturating_sub(TRAVEL).min(MAX_WAIT);
        headers.insert(
            "prefer",
            seconds("wait=", patience.max(Duration::from_secs(1)), ""),
        );
    }
    headers
}

fn seconds(before: &str, time: Duration, after: &str) -> HeaderValue {
    let text = format!("{before}{}{after}", time.as_secs());
    HeaderValue::try_from(text).expect("digits and these words are header characters")
}

/// The model's `input`.
fn input(
    request: &ImageRequest,
    handed: &Handed,
    pictures: &mut Pictures,
    n: NonZeroU8,
    route: &Route,
) -> Result<Map<String, Value>, ProviderError> {
    let mut input = Input {
        route,
        members: Map::new(),
    };
    input.set(Parameter::Prompt, request.prompt.as_str());
    if route.images_per_call > NonZeroU8::MIN {
        // The others have no such field.
        input.set(Parameter::N, n.get());
    }
    if let Some(choice) = input.said(Parameter::Size, request.size) {
        let fields = route.translation.size.fields(choice).ok_or_else(|| {
            let message = format!("size {choice} cannot be asked of this provider");
            unsayable(Parameter::Size.as_str(), message)
        })?;
        input.members.extend(fields.into_owned());
    }
    input.pictures(handed, pictures, request.size.value)?;
    let format = request.output_format;
    if let Some(format) = format.and_then(|format| input.said(Parameter::OutputFormat, format)) {
        let word = OutputFormat::as_str(format);
        let word = route.translation.word(Parameter::OutputFormat, word);
        input.set(Parameter::OutputFormat, word);
    }
    let compression = request.output_compression;
    if let Some(percent) =
        compression.and_then(|percent| input.said(Parameter::OutputCompression, percent))
    {
        input.set(Parameter::OutputCompression, percent);
    }
    input.members.extend(route.translation.fixed.clone());
    Ok(input.members)
}

struct Input<'a> {
    route: &'a Route,
    members: Map<String, Value>,
}

impl Input<'_> {
    fn set(&mut self, parameter: Parameter, value: impl Into<Value>) {
        let name = self.route.translation.name(parameter).to_owned();
        self.members.insert(name, value.into());
    }

    /// The pictures of an edit, in the fields that this model has for them.
    fn pictures(
        &mut self,
        handed: &Handed,
        pictures: &mut Pictures,
        size: SizeChoice,
    ) -> Result<(), ProviderError> {
        if handed.images.is_empty() {
            return Ok(());
        }
        let Some(fields) = &self.route.translation.pictures else {
            let message = "the route's translation does not say where pictures go";
            return Err(ProviderError::new(ErrorKind::ModelUnavailable, message));
        };
        let mut said: Vec<Value> = handed
            .images
            .iter()
            .map(|image| Value::String(image.said(pictures)))
            .collect();
        let said = match said.pop() {
            Some(only) if said.is_empty() && !fields.list => only,
            Some(last) if fields.list => {
                said.push(last);
                Value::Array(said)
            }
            _ => return Err(unsayable("image", "this model takes a single picture")),
        };
        self.members.insert(fields.field.clone(), said);
        if size == SizeChoice::Auto {
            self.members.extend(fields.auto.clone());
        }
        match (&handed.mask, &fields.mask) {
            (None, _) => {}
            (Some(mask), Some(field)) => {
                let mask = Value::String(mask.said(pictures));
                self.members.insert(field.clone(), mask);
            }
            (Some(_), None) => return Err(unsayable("mask", "this model edits without a mask")),
        }
        Ok(())
    }

    /// The value that goes out, if it does.
    fn said<T: Copy>(&self, parameter: Parameter, setting: Setting<T>) -> Option<T> {
        let is_sent = setting.given || self.route.translation.sends_default(parameter);
        is_sent.then_some(setting.value)
    }
}

/// The seed of one of several pictures: equal ones would bring equal pictures. Never above what a signed
/// integer of the other side surely holds.
fn nth_seed(seed: u32, first: u8) -> u32 {
    const SEEDS: u64 = 1 << 31;
    let seed = (u64::from(seed) + u64::from(first)) % SEEDS;
    u32::try_from(seed).unwrap_or_default()
}

fn unsayable(param: &str, message: impl Into<String>) -> ProviderError {
    ProviderError {
        param: Some(param.to_owned()),
        ..ProviderError::new(ErrorKind::InvalidRequest, message)
    }
}

/// Which parameter of the caller became this field of the input, if one did.
pub(super) fn parameter_of(
    field: &str,
    request: &ImageRequest,
    route: &Route,
) -> Option<&'static str> {
    let translation = &route.translation;
    if translation.fixed.contains_key(field) {
        return None;
    }
    if let Some(pictures) = &translation.pictures {
        // `input_images.0` is one of `input_images`.
        let whole = field.split(['.', '[']).next().unwrap_or(field);
        if whole == pictures.field {
            return Some("image");
        }
        if pictures.mask.as_deref() == Some(whole) {
            return Some("mask");
        }
    }
    let size = translation.size.fields(request.size.value);
    if size.is_some_and(|fields| fields.contains_key(field)) {
        return Some(Parameter::Size.as_str());
    }
    [
        Parameter::Prompt,
        Parameter::N,
        Parameter::OutputFormat,
        Parameter::OutputCompression,
        Parameter::Seed,
    ]
    .into_iter()
    .find(|parameter| translation.name(*parameter) == field)
    .map(Parameter::as_str)
}
