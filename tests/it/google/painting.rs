//! What Google paints: sizes, counts, shapes of answers, and that each costs what the contract says.

use serde_json::json;

use super::{
    Doors, Google, PROMPT, banana, banana_cost, decoded, gemini_cost, imagen,
    unreported_banana_cost,
};
use crate::support::{
    fake_google::{API_KEY, Behaviour, REVISED_PROMPT, Reply, Shape, THOUGHT_TOKENS},
    pictures::measure,
};

#[tokio::test(flavor = "multi_thread")]
async fn gemini_paints_every_size_at_the_price_of_its_tokens() {
    for doors in [Doors::Gemini, Doors::Vertex] {
        let google = Google::start(doors).await;
        for (model, size, (width, height), cost) in [
            (
                "gemini-nano-banana-2.1",
                "1024x1024",
                (1024, 1024),
                banana_cost(),
            ),
            ("nano-banana-2.1", "auto", (1024, 1024), banana_cost()),
            (
                "google/gemini-nano-banana-2.1",
                "1536x1024",
                (1264, 848),
                banana_cost(),
            ),
            (
                "gemini-nano-banana-2.1",
                "384x3072",
                (384, 3072),
                banana_cost(),
            ),
            (
                "gemini-nano-banana-2.1",
                "2752x1536",
                (2752, 1536),
                gemini_cost(1_500, 7_500, 30_000, 1680),
            ),
            (
                "gemini-3-pro-image",
                "1024x1792",
                (768, 1376),
                gemini_cost(2_000, 12_000, 120_000, 1120),
            ),
            (
                "gemini-3.1-flash-image",
                "512x512",
                (512, 512),
                gemini_cost(500, 3_000, 60_000, 747),
            ),
            (
                "gemini-3.1-flash-lite-image",
                "896x1200",
                (896, 1200),
                gemini_cost(250, 1_500, 30_000, 1120),
            ),
            (
                "gemini-2.5-flash-image",
                "1024x1024",
                (1024, 1024),
                gemini_cost(300, 2_500, 30_000, 1290),
            ),
        ] {
            let request = json!({"model": model, "prompt": PROMPT, "size": size, "quality": "standard", "user": "u-1"});
            let body = google.paints(&request, cost).await;
            let link = body["data"][0]["url"].as_str().unwrap();
            let picture = google.app.open_link(link).await.expect(200);
            let found = measure(&picture.bytes);
            assert_eq!(
                (found.format, found.width, found.height),
                ("jpeg", width, height),
                "{model} {size}"
            );
            let provider = if doors == Doors::Gemini {
                "google"
            } else {
                "vertex"
            };
            assert_eq!(body["provider"], provider);
            assert!(body["data"][0]["revised_prompt"].is_null());
            let thoughts = i64::try_from(THOUGHT_TOKENS).unwrap();
            assert!(body["usage"]["output_tokens"].as_i64().unwrap() > thoughts);
        }
        google.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn imagen_paints_at_the_price_of_a_picture() {
    for doors in [Doors::Gemini, Doors::Vertex] {
        let google = Google::start(doors).await;
        for (model, size, n, (width, height), each) in [
            ("imagen-3", None, 1, (1024, 1024), 40_000_000),
            ("imagen-3", Some("896x1280"), 2, (896, 1280), 40_000_000),
            ("imagen-4", Some("1408x768"), 4, (1408, 768), 40_000_000),
            ("imagen-4", Some("2048x2048"), 1, (2048, 2048), 40_000_000),
            (
                "imagen-4-ultra",
                Some("1792x1024"),
                1,
                (1408, 768),
                60_000_000,
            ),
            (
                "imagen-4-fast",
                Some("1024x1792"),
                1,
                (768, 1408),
                20_000_000,
            ),
        ] {
            let mut request = json!({"model": model, "prompt": PROMPT, "n": n, "quality": "standard", "response_format": "b64_json", "output_format": "jpeg", "output_compression": 70});
            if let Some(size) = size {
                request["size"] = json!(size);
            }
            let body = google.paints(&request, i64::from(n) * each).await;
            let data = body["data"].as_array().unwrap();
            assert_eq!(data.len(), usize::try_from(n).unwrap());
            for item in data {
                assert_eq!(item["revised_prompt"], REVISED_PROMPT);
                let found = measure(&decoded(item));
                assert_eq!(
                    (found.format, found.width, found.height),
                    ("jpeg", width, height),
                    "{model} {size:?}"
                );
            }
        }
        google.finish().await;
    }
}

/// Gemini paints one a call, Imagen up to four; what does not fit is several calls.
#[tokio::test(flavor = "multi_thread")]
async fn many_pictures_are_several_calls() {
    let google = Google::start(Doors::Gemini).await;
    let mut request = banana();
    request["n"] = json!(3);
    let body = google.paints(&request, 3 * banana_cost()).await;
    assert_eq!(body["data"].as_array().unwrap().len(), 3);
    assert_eq!(google.fake.calls().len(), 3);

    let body = google.paints(&imagen(6), 6 * 40_000_000).await;
    assert_eq!(body["data"].as_array().unwrap().len(), 6);
    let mut counts: Vec<_> = google.fake.calls()[3..]
        .iter()
        .map(|call| call.body["parameters"]["sampleCount"].as_u64().unwrap())
        .collect();
    counts.sort_unstable();
    assert_eq!(counts, [2, 4]);
    google.finish().await;
}

/// The key travels in its header and nowhere else.
#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_in_no_address() {
    let google = Google::start(Doors::Both).await;
    google.paints(&banana(), banana_cost()).await;
    let call = google.fake.calls().remove(0);
    assert_eq!(
        call.path,
        "/v1beta/models/gemini-nano-banana-2.1:generateContent"
    );
    assert_eq!(call.headers["x-goog-api-key"], API_KEY);
    assert!(call.headers.get("authorization").is_none());
    google.finish().await;
}

/// Drafts are not delivered, wherever their flag stands; odd spellings and unknown members do not matter.
#[tokio::test(flavor = "multi_thread")]
async fn pictures_come_in_many_shapes() {
    let google = Google::start(Doors::Gemini).await;
    for shape in [
        Shape::DraftFirst,
        Shape::DraftFlaggedLate,
        Shape::SnakeCase,
        Shape::UnknownFields,
    ] {
        google.fake.next(Behaviour::Shape(shape));
        let body = google.paints(&banana(), banana_cost()).await;
        let data = body["data"].as_array().unwrap();
        assert_eq!(data.len(), 1, "{shape:?}");
        assert_eq!(measure(&decoded(&data[0])).width, 1024, "{shape:?}");
    }
    // Without a report the prompt's and the picture's own tokens are charged, which are known.
    google.fake.next(Behaviour::Shape(Shape::NoUsage));
    google.paints(&banana(), unreported_banana_cost()).await;
    google.fake.next(Behaviour::Shape(Shape::UnknownFields));
    google.paints(&imagen(2), 80_000_000).await;
    google.finish().await;
}

/// Some of the pictures: those are returned and charged, and the answer says what became of the others.
#[tokio::test(flavor = "multi_thread")]
async fn some_of_the_pictures_arrive() {
    let google = Google::start(Doors::Gemini).await;
    google.fake.next(Behaviour::Shape(Shape::RaiSome(2)));
    let body = google.paints(&imagen(4), 80_000_000).await;
    assert_eq!(body["data"].as_array().unwrap().len(), 2);
    let failed = body["failed"].as_array().unwrap();
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert_eq!(failed[0]["code"], "moderation_blocked");
    assert!(
        failed[0]["message"]
            .as_str()
            .unwrap()
            .contains("filtered out 2"),
        "{failed:?}"
    );

    // Of a fan-out one is refused and one breaks.
    google
        .fake
        .next(Behaviour::Shape(Shape::Finished("IMAGE_SAFETY")));
    google.fake.next(Behaviour::Reply(Reply::internal()));
    let mut request = banana();
    request["n"] = json!(4);
    let body = google.paints(&request, 2 * banana_cost()).await;
    assert_eq!(body["data"].as_array().unwrap().len(), 2);
    let mut codes: Vec<_> = body["failed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|failed| failed["code"].as_str().unwrap().to_owned())
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, ["moderation_blocked", "upstream_error"]);
    google.finish().await;
}
