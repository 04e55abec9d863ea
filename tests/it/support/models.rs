//! A model of a test's own, for the directory of models.

/// `pilot`: painted by the fake `OpenAI` at this price a picture, so many in one call.
pub(crate) fn model(price: &str, images_per_call: u8) -> String {
    format!(
        r#"
[[model]]
id = "test/pilot"
name = "Pilot"
aliases = ["pilot"]
created = 1795132800
owned_by = "test"
status = "active"

[model.rules]
prompt = {{ max_chars = 1000 }}
n = {{ min = 1, max = 4, default = 1 }}
size = {{ values = ["256x256"], default = "256x256" }}
response_format = {{ values = ["url", "b64_json"], default = "b64_json" }}

[[model.routes]]
provider = "openai"
upstream_model = "dall-e-2"
images_per_call = {images_per_call}
translation = {{ response_format = "b64_json", send_defaults = ["size"] }}
price = {{ per_image = [{{ price = "{price}" }}] }}
"#
    )
}
