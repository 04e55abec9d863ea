"""Google's models through the synchronous client, as their samples for other models are written."""

import openai

from easel import PROMPT, client, decode, fetch, measure

api = client()

# Imagen: several pictures in one answer, as links and as base64, with the prompt that was painted.
answer = api.images.generate(model="imagen-3", prompt=PROMPT, n=2, size="1024x1024", quality="standard")
assert [measure(fetch(image)) for image in answer.data] == [("png", 1024, 1024)] * 2
assert all(image.revised_prompt for image in answer.data)
assert answer.usage.cost == 0.08, answer.usage
assert (answer.model, answer.provider) == ("google/imagen-3", "google")
answer = api.images.generate(
    model="imagen-3", prompt=PROMPT, size="1792x1024", output_format="jpeg", response_format="b64_json"
)
assert measure(decode(answer.data[0]))[0] == "jpeg"

# What it does not take is refused by name.
for name, value in [("quality", "hd"), ("style", "vivid"), ("size", "1536x1024")]:
    try:
        api.images.generate(model="imagen-3", prompt=PROMPT, **{name: value})
    except openai.BadRequestError as error:
        assert error.param == name, error
    else:
        raise AssertionError(f"{name}={value} was taken")

# Gemini: one picture or several, priced by the tokens that it reports, thinking among them.
answer = api.images.generate(model="gemini-nano-banana-2.1", prompt=PROMPT, size="1536x1024")
assert measure(fetch(answer.data[0]))[0] == "jpeg"
assert answer.usage.input_tokens > 0 and answer.usage.output_tokens > 1120
text = answer.usage.output_tokens - 1120
expected = answer.usage.input_tokens * 1.5e-6 + text * 7.5e-6 + 1120 * 30e-6
assert abs(answer.usage.cost - expected) < 1e-9, (answer.usage.cost, expected)
answer = api.images.generate(model="gemini-nano-banana-2.1", prompt=PROMPT, n=3, response_format="b64_json", user="reader-7")
assert len(answer.data) == 3
assert [measure(decode(image))[0] for image in answer.data] == ["jpeg"] * 3

# A draft in the answer is not delivered.
answer = api.images.generate(model="gemini-nano-banana-2.1", prompt=PROMPT + " [fake:THOUGHT]")
assert len(answer.data) == 1

# A refusal inside of a success is an error to the client.
for model, word in [("gemini-nano-banana-2.1", "IMAGE_SAFETY"), ("gemini-nano-banana-2.1", "BLOCKED_PROMPT"), ("imagen-3", "RAI_ALL")]:
    try:
        api.images.generate(model=model, prompt=f"{PROMPT} [fake:{word}]")
    except openai.BadRequestError as error:
        assert error.code == "moderation_blocked", error
    else:
        raise AssertionError(f"{word} was no error")
try:
    api.images.generate(model="gemini-nano-banana-2.1", prompt=PROMPT + " [fake:RETRY37]")
except openai.RateLimitError as error:
    assert error.response.headers["retry-after"] == "37"
else:
    raise AssertionError("the rate limit was no error")

# An edit: pictures go along with the prompt, and what they count as is charged.
picture = decode(answer.data[0]) if answer.data[0].b64_json else fetch(answer.data[0])
edited = api.images.edit(
    model="gemini-nano-banana-2.1", prompt=PROMPT, image=[("otter.jpg", picture), picture], response_format="b64_json"
)
assert measure(decode(edited.data[0]))[0] == "jpeg"
assert edited.usage.input_tokens_details.image_tokens == 2 * 1120, edited.usage
try:
    api.images.edit(model="gemini-nano-banana-2.1", prompt=PROMPT, image=picture, mask=picture)
except openai.BadRequestError as error:
    assert error.param == "mask", error
else:
    raise AssertionError("a mask was taken")
