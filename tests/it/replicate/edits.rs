//! Edits through Replicate: what is sent along and how, what it costs, and what is refused before money moves.

use reqwest::{Method, multipart};
use serde_json::{Value, json};

use super::{PROMPT, Studio, base64, nano};
use crate::support::{
    Answer,
    fake_replicate::{E005, End, Script},
    pictures::{self, measure},
    usd,
};

/// What an app sends: fields, pictures, a mask.
struct Edit {
    fields: Vec<(&'static str, String)>,
    images: Vec<Vec<u8>>,
    mask: Option<Vec<u8>>,
}

impl Edit {
    fn of(model: &str, images: &[Vec<u8>]) -> Self {
        Self {
            fields: vec![("model", model.to_owned()), ("prompt", PROMPT.to_owned())],
            images: images.to_vec(),
            mask: None,
        }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.fields.push((name, value.to_owned()));
        self
    }

    fn masked(mut self, mask: Vec<u8>) -> Self {
        self.mask = Some(mask);
        self
    }

    fn form(self) -> multipart::Form {
        let file = |bytes: Vec<u8>| multipart::Part::bytes(bytes).file_name("otter.png");
        let mut form = multipart::Form::new();
        for (name, value) in self.fields {
            form = form.text(name, value);
        }
        for image in self.images {
            form = form.part("image[]", file(image));
        }
        match self.mask {
            Some(mask) => form.part("mask", file(mask)),
            None => form,
        }
    }
}

impl Studio {
    async fn edit(&self, edit: Edit) -> Answer {
        let client = &self.app.client;
        let request = client
            .request(Method::POST, "/v1/images/edits")
            .bearer_auth(&self.key.secret)
            .multipart(edit.form());
        client.send(request).await
    }

    /// One that succeeds, and costs what it says.
    async fn edited(&self, edit: Edit) -> Value {
        let before = self.balance().await;
        let answer = self.edit(edit).await.expect(200).json();
        assert_eq!(answer["provider"], "replicate");
        let cost = nano(&answer["usage"]["cost"]);
        assert_eq!(self.balance().await, before - cost, "charged as said");
        answer
    }

    /// One that is refused, and costs nothing: status, code, parameter.
    async fn unedited(&self, edit: Edit) -> (u16, String, Option<String>) {
        let before = self.balance().await;
        let answer = self.edit(edit).await;
        let problem = answer.problem();
        assert_eq!(self.balance().await, before, "a failure costs nothing");
        let param = problem.param.clone();
        (answer.status, problem.code().to_owned(), param)
    }
}

fn picture(format: &'static str, width: u32, height: u32) -> Vec<u8> {
    pictures::paint(format, width, height, 7, false).to_vec()
}

/// One that does not compress: larger than a data URL should be.
fn large() -> Vec<u8> {
    let mut state = 1_u32;
    let noise = image::RgbImage::from_fn(400, 300, |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [_, red, green, blue] = state.to_be_bytes();
        image::Rgb([red, green, blue])
    });
    let mut file = std::io::Cursor::new(Vec::new());
    noise.write_to(&mut file, image::ImageFormat::Png).unwrap();
    let file = file.into_inner();
    assert!(file.len() > 256 * 1024);
    file
}

/// What stands in a data URL.
fn inside(data_url: &Value) -> Vec<u8> {
    let (_, content) = data_url.as_str().unwrap().split_once(',').unwrap();
    base64(&json!(content))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_model_takes_pictures_in_its_own_way() {
    let studio = Studio::open().await;
    let square = picture("png", 128, 128);
    let wide = picture("jpeg", 640, 320);
    for (model, images, field, cost) in [
        ("flux-1-dev", vec![&wide], "image", 25_000_000),
        ("flux-1-pro", vec![&square], "image_prompt", 55_000_000),
        ("flux-1.1-pro", vec![&square], "image_prompt", 40_000_000),
        (
            "flux-1.1-pro-ultra",
            vec![&square],
            "image_prompt",
            60_000_000,
        ),
        ("flux-kontext-pro", vec![&wide], "input_image", 40_000_000),
        ("flux-kontext-max", vec![&wide], "input_image", 80_000_000),
        // 0.03 for the megapixel that comes, 0.02 for each that goes in, one at least for each picture.
        ("flux-2-pro", vec![&square], "input_images", 50_000_000),
        (
            "flux-2-pro",
            vec![&square, &wide, &square],
            "input_images",
            90_000_000,
        ),
        (
            "flux-2-flex",
            vec![&wide, &square],
            "input_images",
            180_000_000,
        ),
        ("flux-2-dev", vec![&square], "input_images", 24_000_000),
    ] {
        let before = studio.replicate.creates().len();
        let sent: Vec<_> = images.iter().map(|&image| image.clone()).collect();
        let answer = studio.edited(Edit::of(model, &sent)).await;
        assert_eq!(answer["usage"]["cost"], usd(cost), "{model}");
        assert_eq!(answer["model"], format!("black-forest-labs/{model}"));
        let creates = studio.replicate.creates().split_off(before);
        let [create] = &creates[..] else {
            panic!("{model}: {creates:?}");
        };
        let said = match &create.input[field] {
            Value::Array(said) => said.clone(),
            said => vec![said.clone()],
        };
        let said: Vec<_> = said.iter().map(inside).collect();
        assert_eq!(said, sent, "{model}");
        if field == "input_images" {
            assert_eq!(create.input["aspect_ratio"], "match_input_image");
        }
    }
    assert_eq!(studio.replicate.uploads(), 0, "small ones go along");
    studio.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_size_that_is_asked_for_holds() {
    let studio = Studio::open().await;
    let large_input = picture("png", 1200, 1000);
    let edit = Edit::of("flux-2-pro", &[large_input])
        .with("size", "1056x1024")
        .with("n", "2")
        .with("response_format", "b64_json");
    let answer = studio.edited(edit).await;
    for one in answer["data"].as_array().unwrap() {
        let painted = measure(&base64(&one["b64_json"]));
        assert_eq!((painted.width, painted.height), (1056, 1024));
    }
    // Two megapixels begun on either side, twice: 2 × (0.03 + 0.02 + 2 × 0.02).
    assert_eq!(answer["usage"]["cost"], usd(180_000_000));
    studio.close().await;
}

/// The vendor advises data URLs up to 256 KB; what is larger goes ahead as a file.
#[tokio::test(flavor = "multi_thread")]
async fn large_pictures_go_ahead_as_files() {
    let studio = Studio::open().await;
    let edit = || Edit::of("flux-2-dev", &[large(), picture("png", 128, 128)]);
    studio.edited(edit()).await;
    assert_eq!(studio.replicate.uploads(), 1);
    let input = studio.replicate.creates().remove(0).input;
    let link = input["input_images"][0].as_str().unwrap();
    assert!(
        link.starts_with(&studio.replicate.base_url()) && link.contains("/files/"),
        "{link}"
    );
    let other = input["input_images"][1].as_str().unwrap();
    assert!(other.starts_with("data:image/png;base64,"));

    // An upload does no harm, so it is tried again.
    let busy = json!({"detail": "temporarily unavailable"});
    studio.replicate.refuse_upload(503, busy);
    studio.edited(edit()).await;
    assert_eq!(studio.replicate.uploads(), 3);

    // Several pictures are several predictions, and one file.
    let uploads = studio.replicate.uploads();
    studio.edited(edit().with("n", "3")).await;
    assert_eq!(studio.replicate.uploads(), uploads + 1);
    let links: Vec<Value> = (studio.replicate.creates().into_iter().skip(2))
        .map(|create| create.input["input_images"][0].clone())
        .collect();
    assert_eq!(links.len(), 3);
    assert!(links.iter().all(|link| link == &links[0]), "{links:?}");
    // A server without files gets them in the input.
    studio.replicate.without_files();
    studio.edited(edit()).await;
    let input = studio.replicate.creates().pop().unwrap().input;
    assert_eq!(inside(&input["input_images"][0]), large());
    studio.close().await;
}

/// Nothing is painted yet, so nothing can have cost anything.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_fails_creates_nothing() {
    for (status, title, expected) in [
        (401, "Unauthenticated", (502, "upstream_error", None)),
        (402, "Insufficient credit", (502, "upstream_error", None)),
        (413, "Too large", (400, "invalid_value", Some("image"))),
        (429, "", (429, "upstream_rate_limited", None)),
        (500, "", (502, "upstream_error", None)),
    ] {
        let studio = Studio::open().await;
        for _ in 0..2 {
            let body = json!({"title": title, "detail": "Files must be less than 100MB in size"});
            studio.replicate.refuse_upload(status, body);
        }
        let (ours, code, param) = studio.unedited(Edit::of("flux-2-dev", &[large()])).await;
        assert_eq!(
            (ours, code.as_str(), param.as_deref()),
            expected,
            "{status}"
        );
        assert!(studio.replicate.creates().is_empty());
        assert_eq!(studio.attempts("not maybe_charged").await, 1, "{status}");
        studio.replicate.prove();
        studio.app.finish().await;
    }
}

/// The mask of OpenAI is transparent where to paint, Flux Fill's is white there.
#[tokio::test(flavor = "multi_thread")]
async fn a_mask_is_turned_over() {
    let studio = Studio::open().await;
    let mask = image::RgbaImage::from_fn(64, 32, |x, _| {
        image::Rgba([200, 30, 30, if x < 32 { 0 } else { 255 }])
    });
    let mut file = std::io::Cursor::new(Vec::new());
    mask.write_to(&mut file, image::ImageFormat::Png).unwrap();
    let image = picture("png", 64, 32);
    let edit = Edit::of("flux-fill-pro", std::slice::from_ref(&image)).masked(file.into_inner());
    let answer = studio.edited(edit).await;
    assert_eq!(answer["usage"]["cost"], usd(50_000_000));
    let input = studio.replicate.creates().remove(0).input;
    assert_eq!(inside(&input["image"]), image);
    let said = image::load_from_memory(&inside(&input["mask"])).unwrap();
    assert!(!said.color().has_alpha());
    let said = said.to_luma8();
    assert_eq!(said.dimensions(), (64, 32));
    assert_eq!(said.get_pixel(0, 0).0, [255], "white: paint");
    assert_eq!(said.get_pixel(63, 31).0, [0], "black: keep");

    // A picture that is transparent itself says where.
    let transparent = pictures::paint("png", 64, 64, 3, true).to_vec();
    studio
        .edited(Edit::of("flux-fill-pro", &[transparent]))
        .await;
    let input = studio.replicate.creates().pop().unwrap().input;
    assert!(input.get("mask").is_none());
    studio.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_model_cannot_edit_is_refused_by_name() {
    let studio = Studio::open().await;
    let square = || picture("png", 64, 64);
    let mask = || pictures::paint("png", 64, 64, 9, true).to_vec();
    let nine = vec![square(); 9];
    for (edit, param) in [
        (Edit::of("flux-1-schnell", &[square()]), "model"),
        (Edit::of("flux-1.1-pro", &[square(), square()]), "image"),
        (Edit::of("flux-2-pro", &nine), "image"),
        (Edit::of("flux-2-pro", &[square()]).masked(mask()), "mask"),
        (Edit::of("flux-fill-pro", &[square()]), "mask"),
        (
            Edit::of("flux-fill-pro", &[square()]).with("size", "1024x1024"),
            "size",
        ),
        (
            Edit::of("flux-1-dev", &[square()]).with("size", "1024x1024"),
            "size",
        ),
        (
            Edit::of("flux-kontext-pro", &[square()]).with("output_format", "webp"),
            "output_format",
        ),
        (
            Edit::of("flux-2-pro", &[square()]).with("input_fidelity", "high"),
            "input_fidelity",
        ),
    ] {
        let described = format!("{:?}", edit.fields);
        let (status, _, blamed) = studio.unedited(edit).await;
        assert_eq!(
            (status, blamed.as_deref()),
            (400, Some(param)),
            "{described}"
        );
    }
    // And what does nothing but edit does not generate.
    let request = json!({"model": "flux-fill-pro", "prompt": PROMPT});
    let problem = studio.app.refuse(&studio.key, 400, &request).await;
    assert_eq!(problem.param(), "model");
    assert!(problem.message.contains("/v1/images/edits"), "{problem:?}");
    assert!(studio.replicate.creates().is_empty());
    assert_eq!(studio.replicate.uploads(), 0);
    studio.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_is_refused_as_a_generation_is() {
    let studio = Studio::open().await;
    let edit = || Edit::of("flux-2-pro", &[picture("png", 64, 64)]);
    studio.replicate.next(Script::ends(End::Failed(E005)));
    let (status, code, _) = studio.unedited(edit()).await;
    assert_eq!((status, code.as_str()), (400, "moderation_blocked"));
    // The provider's names of fields are not the caller's.
    let body = json!({
        "title": "Input validation failed", "status": 422, "detail": "",
        "invalid_fields": [{"type": "format", "field": "input.input_images.0", "description": "Does not match format 'uri'"}],
    });
    studio
        .replicate
        .next(crate::support::fake_replicate::Behaviour::Refuse(422, body));
    let (status, _, param) = studio.unedited(edit()).await;
    assert_eq!((status, param.as_deref()), (400, Some("image")));
    studio.close().await;
}
