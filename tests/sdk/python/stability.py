"""Stable Diffusion 3 through the synchronous client, as one would ask DALL·E for pictures."""

import openai
from easel import PROMPT, client, decode, fetch, measure

MODEL = "stability/stable-diffusion-3-large"
api = client()

# The sample: one picture, as a link.
answer = api.images.generate(model=MODEL, prompt=PROMPT, n=1, size="1024x1024")
assert measure(fetch(answer.data[0])) == ("png", 1024, 1024)
assert answer.model == MODEL and answer.provider == "stability"
assert answer.usage.cost == 0.065, answer.usage
assert answer.usage.total_tokens == 0

# Four of them as base64, each another one.
answer = api.images.generate(
    model=MODEL,
    prompt=PROMPT,
    n=4,
    size="1536x1024",
    quality="standard",
    response_format="b64_json",
    user="reader-7",
)
files = [decode(image) for image in answer.data]
assert [measure(file)[0] for file in files] == ["png"] * 4
assert len(set(files)) == 4
assert answer.usage.cost == 0.26, answer.usage

# A size that it cannot paint is refused with those that it can.
try:
    api.images.generate(model=MODEL, prompt=PROMPT, size="512x512")
except openai.BadRequestError as error:
    assert error.param == "size" and "16:9" in error.message, error
else:
    raise AssertionError("512x512 was taken")

# Refused before painting, and after it.
for word in ["MODERATE", "BLUR"]:
    try:
        api.images.generate(model=MODEL, prompt=f"{PROMPT} {word}")
    except openai.BadRequestError as error:
        assert error.code == "moderation_blocked", error
    else:
        raise AssertionError(f"{word} was painted")
