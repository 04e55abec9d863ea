//! Edits by Gemini's models: the pictures go along as they came, and what they count as is held and charged.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use image::ImageEncoder as _;
use reqwest::{
    Method,
    multipart::{Form, Part},
};
use serde_json::{Value, json};

use super::{Doors, Google, PROMPT, banana, banana_cost, decoded, gemini_cost};
use crate::support::{
    Answer,
    fake_google::{Behaviour, INPUT_PICTURE_TOKENS, Reply, Shape},
    pictures::{measure, paint},
};

impl Google {
    /// Posts this request with these pictures, and a mask if one is given.
    async fn sends(
        &self,
        path: &str,
        request: &Value,
        images: &[Bytes],
        mask: Option<&Bytes>,
    ) -> Answer {
        let part = |bytes: &Bytes| Part::bytes(bytes.to_vec()).file_name("upload");
        let mut form = Form::new();
        for (name, value) in request.as_object().unwrap() {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            form = form.text(name.clone(), text);
        }
        let name = if images.len() == 1 {
            "image"
        } else {
            "image[]"
        };
        for image in images {
            form = form.part(name, part(image));
        }
        if let Some(mask) = mask {
            form = form.part("mask", part(mask));
        }
        self.app.keep_secret(PROMPT, "a prompt");
        let request = self
            .app
            .client
            .request(Method::POST, path)
            .bearer_auth(&self.key.secret);
        self.app.client.send(request.multipart(form)).await
    }

    /// Edits, and proves that the answer, the balance and the books name the same amount.
    async fn edits(&self, request: &Value, images: &[Bytes], expected_nano: i64) -> Value {
        let before = self.app.balance(&self.key).await;
        let answer = self.sends(EDITS, request, images, None).await;
        self.proves(&answer, &before, expected_nano, request).await
    }

    /// What was held for the last generation.
    async fn last_held(&self) -> i64 {
        let query = "select amount_nano_usd from holds order by generation_id desc limit 1";
        self.app.database.number(query).await
    }
}

const EDITS: &str = "/v1/images/edits";
const VARIATIONS: &str = "/v1/images/variations";

/// So many input pictures cost so much; the rate is in nano-USD per token.
fn inputs_cost(count: i64, rate: i64) -> i64 {
    count * i64::try_from(INPUT_PICTURE_TOKENS).unwrap() * rate
}

/// A picture that does not compress.
fn noise() -> Bytes {
    let (width, height) = (1000_u32, 900_u32);
    let mut state = 7_u32;
    let pixels: Vec<u8> = (0..width * height * 3)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[0]
        })
        .collect();
    let mut bytes = Vec::new();
    image::codecs::png::PngEncoder::new(&mut bytes)
        .write_image(&pixels, width, height, image::ExtendedColorType::Rgb8)
        .unwrap();
    bytes.into()
}

/// The prompt first, the pictures behind it in the client's order, byte for byte, each as what it is; through
/// both ways in, small ones and such as do not stay in memory.
#[tokio::test(flavor = "multi_thread")]
async fn the_pictures_go_along_as_they_came() {
    for doors in [Doors::Gemini, Doors::Vertex] {
        let google = Google::start(doors).await;
        let pictures = [
            ("image/png", paint("png", 333, 444, 3, true)),
            ("image/jpeg", paint("jpeg", 640, 480, 4, false)),
            ("image/webp", paint("webp", 320, 320, 5, false)),
            ("image/png", noise()),
        ];
        let images = pictures.clone().map(|(_, bytes)| bytes);
        let request = json!({"model": "gemini-nano-banana-2.1", "prompt": PROMPT, "size": "2752x1536", "response_format": "b64_json"});
        let cost = gemini_cost(1_500, 7_500, 30_000, 1680) + inputs_cost(4, 1_500);
        let body = google.edits(&request, &images, cost).await;
        let found = measure(&decoded(&body["data"][0]));
        assert_eq!((found.width, found.height), (2752, 1536));
        let image_tokens = &body["usage"]["input_tokens_details"]["image_tokens"];
        assert_eq!(image_tokens, &json!(4 * INPUT_PICTURE_TOKENS));

        let call = google.fake.calls().remove(0);
        let parts = call.body["contents"][0]["parts"].as_array().unwrap();
        assert_eq!(parts[0], json!({"text": PROMPT}));
        assert_eq!(parts.len(), 5);
        for (part, (kind, bytes)) in parts[1..].iter().zip(&pictures) {
            let expected = json!({"mimeType": kind, "data": STANDARD.encode(bytes)});
            assert!(
                part["inlineData"] == expected,
                "another {kind} of {} bytes",
                bytes.len()
            );
        }
        // Some servers take no chunked bodies.
        assert!(call.headers.get("transfer-encoding").is_none());
        let length: usize = call.headers["content-length"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(length, call.body.to_string().len());
        google.finish().await;
    }
}

/// Every model that edits, at its own rate; without a size nothing is said of one.
#[tokio::test(flavor = "multi_thread")]
async fn every_model_edits_at_its_own_price() {
    let google = Google::start(Doors::Gemini).await;
    let image = [paint("png", 512, 512, 3, false)];
    for (model, rates, image_tokens) in [
        ("gemini-nano-banana-2.1", (1_500, 7_500, 30_000), 1120),
        ("gemini-3-pro-image", (2_000, 12_000, 120_000), 1120),
        ("gemini-3.1-flash-image", (500, 3_000, 60_000), 1120),
        ("gemini-3.1-flash-lite-image", (250, 1_500, 30_000), 1120),
        ("gemini-2.5-flash-image", (300, 2_500, 30_000), 1290),
    ] {
        let (text_in, text_out, image_out) = rates;
        let cost =
            gemini_cost(text_in, text_out, image_out, image_tokens) + inputs_cost(1, text_in);
        let request = json!({"model": model, "prompt": PROMPT, "user": "u-1"});
        let body = google.edits(&request, &image, cost).await;
        let link = body["data"][0]["url"].as_str().unwrap();
        google.app.open_link(link).await.expect(200);
        let call = google.fake.calls().pop().unwrap();
        assert_eq!(
            call.body["generationConfig"],
            json!({"responseModalities": ["IMAGE"]}),
            "{model}"
        );
    }
    // Several pictures are several calls, each with all the inputs.
    let request = json!({"model": "gemini-nano-banana-2.1", "prompt": PROMPT, "n": 3});
    let images = [image[0].clone(), paint("jpeg", 64, 64, 9, false)];
    let cost = 3 * (banana_cost() + inputs_cost(2, 1_500));
    let body = google.edits(&request, &images, cost).await;
    assert_eq!(body["data"].as_array().unwrap().len(), 3);
    google.finish().await;
}

/// The hold knows of the input pictures: each adds what it counts as.
#[tokio::test(flavor = "multi_thread")]
async fn input_pictures_are_held_for() {
    let google = Google::start(Doors::Gemini).await;
    let images: Vec<Bytes> = (0..14)
        .map(|seed| paint("png", 64, 64, seed, false))
        .collect();
    let request = json!({"model": "gemini-nano-banana-2.1", "prompt": PROMPT});
    let cost = |count| banana_cost() + inputs_cost(count, 1_500);
    google.edits(&request, &images[..1], cost(1)).await;
    let one = google.last_held().await;
    google.edits(&request, &images, cost(14)).await;
    let more = google.last_held().await - one;
    assert!(
        more >= inputs_cost(13, 1_500),
        "{more} more for 13 more pictures"
    );
    google.finish().await;
}

/// Whatever makes a call go out again sends the pictures again: a token that is refused, an answer without a
/// picture, another route.
#[tokio::test(flavor = "multi_thread")]
async fn the_pictures_go_out_again() {
    let image = [noise()];
    let request = banana();
    let cost = banana_cost() + inputs_cost(1, 1_500);
    let sent = |google: &Google| {
        let calls = google.fake.calls();
        let data = calls.iter().map(|call| {
            let part = &call.body["contents"][0]["parts"][1]["inlineData"]["data"];
            part.as_str().unwrap().len()
        });
        data.collect::<Vec<_>>()
    };
    let length = STANDARD.encode(&image[0]).len();

    let mut google = Google::start(Doors::Vertex).await;
    google.edits(&request, &image, cost).await;
    google.fake.revoke_tokens();
    google.edits(&request, &image, cost).await;
    google
        .fake
        .next(Behaviour::Shape(Shape::Finished("NO_IMAGE")));
    google.edits(&request, &image, cost).await;
    assert_eq!(sent(&google), [length; 5]);
    google.repeated = 2;
    google.finish().await;

    let google = Google::start(Doors::Both).await;
    google.fake.next(Behaviour::Reply(Reply::overloaded()));
    let body = google.edits(&request, &image, cost).await;
    assert_eq!(body["provider"], "vertex");
    assert_eq!(sent(&google), [length; 2]);
    google.finish().await;
}

/// What Google cannot do is refused by name, and nobody is called, nothing held.
#[tokio::test(flavor = "multi_thread")]
async fn what_google_cannot_edit_is_refused_by_name() {
    let google = Google::start(Doors::Both).await;
    let picture = paint("png", 64, 64, 3, false);
    let mask = paint("png", 64, 64, 4, true);
    let banana = "gemini-nano-banana-2.1";
    for (path, model, count, mask, param) in [
        (EDITS, banana, 1, Some(&mask), "mask"),
        (EDITS, banana, 15, None, "image"),
        (EDITS, "gemini-2.5-flash-image", 4, None, "image"),
        (EDITS, banana, 0, None, "image"),
        (EDITS, "imagen-3", 1, None, "model"),
        (EDITS, "imagen-4", 1, Some(&mask), "model"),
        (VARIATIONS, banana, 1, None, "model"),
    ] {
        let mut request = json!({"model": model});
        if path == EDITS {
            request["prompt"] = json!(PROMPT);
        }
        let images = vec![picture.clone(); count];
        let answer = google.sends(path, &request, &images, mask).await;
        let problem = answer.problem();
        let described = format!("{path} {model} {count}: {problem:?}");
        assert_eq!(
            (answer.status, problem.param()),
            (400, param),
            "{described}"
        );
    }
    for (parameter, value) in [
        ("size", "512x512"),
        ("quality", "high"),
        ("background", "transparent"),
        ("input_fidelity", "high"),
    ] {
        let mut request = json!({"model": banana, "prompt": PROMPT});
        request[parameter] = json!(value);
        let answer = google
            .sends(EDITS, &request, std::slice::from_ref(&picture), None)
            .await;
        assert_eq!(answer.status, 400);
        assert_eq!(answer.problem().param(), parameter);
    }
    assert!(google.fake.calls().is_empty());
    assert_eq!(
        google
            .app
            .database
            .number("select count(*) from holds")
            .await,
        0
    );
    assert_eq!(google.app.balance(&google.key).await, json!(20));
    google.finish().await;
}

/// Refusals and failures of edits are those of generations.
#[tokio::test(flavor = "multi_thread")]
async fn edits_fail_as_generations_do() {
    for (behaviour, status, code) in [
        (
            Behaviour::Shape(Shape::Finished("IMAGE_SAFETY")),
            400,
            "moderation_blocked",
        ),
        (
            Behaviour::Shape(Shape::BlockedPrompt("PROHIBITED_CONTENT")),
            400,
            "moderation_blocked",
        ),
        (Behaviour::Shape(Shape::TextOnly), 502, "upstream_error"),
        (
            Behaviour::Reply(Reply::rate_limited("37s")),
            429,
            "upstream_rate_limited",
        ),
        (Behaviour::CutAfter(3000), 502, "upstream_error"),
    ] {
        let google = Google::start(Doors::Gemini).await;
        google.fake.next(behaviour);
        let answer = google
            .sends(EDITS, &banana(), &[paint("png", 64, 64, 3, false)], None)
            .await;
        assert_eq!((answer.status, answer.problem().code()), (status, code));
        assert_eq!(google.app.balance(&google.key).await, json!(20));
        google.finish().await;
    }
}
