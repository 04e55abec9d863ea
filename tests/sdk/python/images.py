"""Pictures through the synchronous client: every family, every parameter."""

import base64
import json

from easel import PROMPT, TEST_KEY, client, decode, fetch, measure

# Strict: whatever the types of the SDK do not allow in an answer raises.
api = client(_strict_response_validation=True)

# dall-e-2: four links, each to another picture.
answer = api.images.generate(model="dall-e-2", prompt=PROMPT, n=4, size="256x256")
files = [fetch(image) for image in answer.data]
assert [measure(file) for file in files] == [("png", 256, 256)] * 4
assert len(set(files)) == 4
assert answer.created > 1_700_000_000
assert answer.usage.cost == 0.064, answer.usage
assert answer.usage.total_tokens == 0
assert answer.model == "openai/dall-e-2" and answer.provider == "openai"
assert answer._request_id.startswith("req_")

# The same as base64.
answer = api.images.generate(
    model="dall-e-2", prompt=PROMPT, n=4, size="512x512", response_format="b64_json", user="reader-7"
)
assert [measure(decode(image)) for image in answer.data] == [("png", 512, 512)] * 4
assert all(image.revised_prompt is None for image in answer.data)

# dall-e-3 in hd with a style, both ways.
for response_format, read in [("url", fetch), ("b64_json", decode)]:
    answer = api.images.generate(
        model="dall-e-3",
        prompt=PROMPT,
        n=1,
        quality="hd",
        style="natural",
        size="1024x1792",
        response_format=response_format,
        user="reader-7",
    )
    assert measure(read(answer.data[0])) == ("png", 1024, 1792)
    assert answer.data[0].revised_prompt
    assert answer.usage.cost == 0.12

# gpt-image-1 with every parameter it has.
answer = api.images.generate(
    model="gpt-image-1",
    prompt=PROMPT,
    n=2,
    size="1536x1024",
    quality="medium",
    background="opaque",
    output_format="webp",
    output_compression=70,
    moderation="low",
    user="reader-7",
)
assert [measure(decode(image))[0] for image in answer.data] == ["webp", "webp"]
assert (answer.size, answer.quality, answer.background, answer.output_format) == (
    "1536x1024",
    "medium",
    "opaque",
    "webp",
)
assert answer.usage.output_tokens == 2 * 1568
assert answer.usage.input_tokens == answer.usage.input_tokens_details.text_tokens > 0
assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
expected = answer.usage.input_tokens * 5e-6 + answer.usage.output_tokens * 40e-6
assert abs(answer.usage.cost - expected) < 1e-9, (answer.usage.cost, expected)

# gpt-image-2 with every parameter it has, a free size and transparency among them.
answer = api.images.generate(
    model="gpt-image-2",
    prompt=PROMPT,
    n=1,
    size="1280x720",
    quality="low",
    background="transparent",
    output_format="png",
    moderation="auto",
    extra_body={"safety_identifier": "reader-7"},
)
assert measure(decode(answer.data[0])) == ("png", 1280, 720)
assert answer.background == "transparent"
assert answer.safety_identifier == "reader-7"

# What only the gateway knows goes through extra_body.
answer = api.images.generate(
    model="openai/dall-e-2", prompt=PROMPT, size="256x256", extra_body={"provider": {"only": ["openai"]}}
)
assert answer.provider == "openai"

# Without a model, and with explicit nulls.
answer = api.images.generate(prompt=PROMPT, n=None, size=None, user="reader-7")
assert answer.model == "openai/dall-e-2"

# Headers through the raw response.
raw = api.images.with_raw_response.generate(model="dall-e-2", prompt=PROMPT, size="256x256")
assert raw.headers["content-type"] == "application/json"
assert raw.headers["x-request-id"] == raw.parse()._request_id
assert raw.headers["x-generation-id"].startswith("gen_")

# A large answer read lazily.
with api.images.with_streaming_response.generate(
    model="dall-e-2", prompt=PROMPT, n=3, response_format="b64_json"
) as response:
    assert response.status_code == 200
    answer = json.loads(b"".join(response.iter_bytes()))
    assert [measure(base64.b64decode(image["b64_json"])) for image in answer["data"]] == [("png", 1024, 1024)] * 3

# A test key paints the same for nothing.
answer = client(TEST_KEY, _strict_response_validation=True).images.generate(model="dall-e-3", prompt=PROMPT)
assert answer.provider == "sandbox"
assert measure(fetch(answer.data[0])) == ("png", 1024, 1024)
