"""Edits through the synchronous client: every way to hand over a picture."""

import io
import pathlib
import tempfile
import warnings

import openai

from easel import PROMPT, TEST_KEY, client, decode, fetch, measure, png

api = client(_strict_response_validation=True)

square = png(64, 64)
wide = png(96, 64, colour=(20, 120, 200))
mask = png(64, 64, alpha=0)

with tempfile.TemporaryDirectory() as directory:
    path = pathlib.Path(directory, "otter.png")
    path.write_bytes(square)
    ways = {
        "a file": open(path, "rb"),
        "a path": path,
        "bytes": square,
        "BytesIO": io.BytesIO(square),
        "a tuple": ("otter.png", square, "image/png"),
        "a tuple without a type": ("otter.png", square),
        "a list of one": [open(path, "rb")],
        "a list": [open(path, "rb"), wide, ("third.png", io.BytesIO(square), "image/png")],
    }
    for name, image in ways.items():
        answer = api.images.edit(model="gpt-image-1", image=image, prompt=PROMPT, size="1024x1024")
        assert measure(decode(answer.data[0])) == ("png", 1024, 1024), name
        assert answer.provider == "openai"
        details = answer.usage.input_tokens_details
        assert details.image_tokens > 0, name
        assert answer.usage.input_tokens == details.text_tokens + details.image_tokens
        # USD 5 a million text tokens, 10 of pictures that go in, 40 of those that come out.
        expected = details.text_tokens * 5e-6 + details.image_tokens * 10e-6 + answer.usage.output_tokens * 40e-6
        assert abs(answer.usage.cost - expected) < 1e-9, (name, answer.usage)

# With a mask, raw as it is, and with every parameter that edits have.
answer = api.images.edit(
    model="gpt-image-1",
    image=square,
    mask=mask,
    prompt=PROMPT,
    n=2,
    size="1536x1024",
    quality="low",
    background="opaque",
    output_format="webp",
    output_compression=60,
    input_fidelity="high",
    user="reader-7",
)
assert [measure(decode(image))[0] for image in answer.data] == ["webp", "webp"]
assert (answer.size, answer.quality, answer.output_format) == ("1536x1024", "low", "webp")

# A free size, and a transparent background.
answer = api.images.edit(
    model="gpt-image-2", image=[square, wide], prompt=PROMPT, size="1280x720", background="transparent"
)
assert measure(decode(answer.data[0])) == ("png", 1280, 720)

# dall-e-2: one square PNG, links or base64; and variations, which only it has.
answer = api.images.edit(model="dall-e-2", image=square, mask=mask, prompt=PROMPT, size="256x256")
assert measure(fetch(answer.data[0])) == ("png", 256, 256)
answer = api.images.edit(
    model="dall-e-2", image=square, prompt=PROMPT, n=2, size="512x512", response_format="b64_json"
)
assert [measure(decode(image)) for image in answer.data] == [("png", 512, 512)] * 2
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    answer = api.images.create_variation(model="dall-e-2", image=square, n=2, size="256x256")
    assert [measure(fetch(image)) for image in answer.data] == [("png", 256, 256)] * 2
    try:
        api.images.create_variation(model="gpt-image-2", image=square)
    except openai.BadRequestError:
        pass
    else:
        raise AssertionError("gpt-image-2 makes no variations")

# What is wrong is said by name before anybody is asked.
for code, param, arguments in [
    ("invalid_input_fidelity_model", "input_fidelity", {"model": "gpt-image-2", "input_fidelity": "high"}),
    ("unsupported_file_mimetype", "image", {"model": "gpt-image-1", "image": b"no picture at all, only text"}),
    (None, "mask", {"model": "gpt-image-1", "mask": png(32, 32, alpha=0)}),
    (None, "image", {"model": "dall-e-2", "image": wide}),
    (None, "moderation", {"model": "gpt-image-1", "extra_body": {"moderation": "low"}}),
]:
    try:
        api.images.edit(**{"image": square, "prompt": PROMPT, **arguments})
    except openai.BadRequestError as error:
        assert code in (None, error.code) and error.param == param, (arguments, error.body)
    else:
        raise AssertionError(f"{param} was let through: {arguments}")

# A test key edits for nothing.
answer = client(TEST_KEY).images.edit(model="gpt-image-1", image=square, prompt=PROMPT)
assert answer.provider == "sandbox"
