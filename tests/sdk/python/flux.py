"""The models of Black Forest Labs through the SDK, as OpenAI's own samples ask."""

import openai
from easel import PROMPT, client, decode, fetch, measure

api = client()

# The sample of every OpenAI tutorial, with the model's name alone changed.
answer = api.images.generate(
    model="black-forest-labs/flux-1-pro", prompt=PROMPT, n=1, size="1024x1024", quality="standard"
)
assert measure(fetch(answer.data[0])) == ("png", 1024, 1024)
assert answer.model == "black-forest-labs/flux-1-pro" and answer.provider == "replicate"
assert answer.usage.cost == 0.055, answer.usage

# Three pictures, three predictions.
answer = api.images.generate(model="flux-1-pro", prompt=PROMPT, n=3, size="512x768", response_format="b64_json")
assert [measure(decode(image)) for image in answer.data] == [("png", 512, 768)] * 3
assert answer.usage.cost == 0.165, answer.usage

# Six pictures, two predictions.
answer = api.images.generate(model="flux-1-schnell", prompt=PROMPT, n=6, response_format="b64_json")
assert [measure(decode(image)) for image in answer.data] == [("png", 1024, 1024)] * 6
assert answer.usage.cost == 0.018, answer.usage

# Every parameter that it has.
answer = api.images.generate(
    model="black-forest-labs/flux-1-schnell",
    prompt=PROMPT,
    n=2,
    size="1024x1792",
    quality="auto",
    background="opaque",
    moderation="auto",
    output_format="webp",
    output_compression=70,
    response_format="b64_json",
    user="reader-7",
)
assert [measure(decode(image))[0] for image in answer.data] == ["webp", "webp"]

# Outputs within the answer, and one that the safety filter left of four.
answer = api.images.generate(model="flux-1-schnell", prompt=f"[fake:DATAURL] {PROMPT}", n=2)
assert [measure(fetch(image)) for image in answer.data] == [("png", 1024, 1024)] * 2
answer = api.images.generate(model="flux-1-schnell", prompt=f"[fake:PARTIAL] {PROMPT}", n=4)
assert len(answer.data) == 1 and answer.usage.cost == 0.003

for behaviour, model in [
    ("NSFW", "flux-1-schnell"),
    ("E005", "black-forest-labs/flux-1-pro"),
    ("EMPTY", "flux-1-schnell"),
]:
    try:
        api.images.generate(model=model, prompt=f"[fake:{behaviour}] {PROMPT}")
        raise AssertionError(f"{behaviour} was painted")
    except openai.BadRequestError as error:
        assert error.code == "moderation_blocked", error

# A size that it cannot paint, told by name.
try:
    api.images.generate(model="flux-1-schnell", prompt=PROMPT, size="256x256")
    raise AssertionError("a size that schnell does not have was painted")
except openai.BadRequestError as error:
    assert error.param == "size" and "1024x1024" in error.message
