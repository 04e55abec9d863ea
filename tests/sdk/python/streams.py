"""Streams through both clients, read as OpenAI's own samples read them."""

import asyncio
import base64
import io
import time

import openai

from easel import PROMPT, TEST_KEY, async_client, client, measure, png

# Strict: whatever the types of the SDK do not allow in an event raises.
api = client(_strict_response_validation=True)


def picture(event):
    return base64.b64decode(event.b64_json, validate=True)


def check(events, partials, kind="image_generation", n=1, size=("png", 1536, 1024)):
    """The events of `n` pictures with so many partials each."""
    kinds = [event.type for event in events]
    assert kinds == ([f"{kind}.partial_image"] * partials + [f"{kind}.completed"]) * n, kinds
    pictures = [picture(event) for event in events]
    assert [measure(each) for each in pictures] == [size] * len(events)
    assert len(set(pictures)) == len(events), "each is another picture"
    for event in events:
        assert event.created_at > 1_700_000_000
        assert event.output_format == "png"
        assert event.size and event.quality and event.background
    drafts = [event.partial_image_index for event in events if event.type.endswith("partial_image")]
    assert drafts == list(range(partials)) * n, drafts
    usage = events[-1].usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert usage.input_tokens_details.text_tokens > 0
    return usage


# OpenAI's sample, with 0 to 3 partials.
costs = []
for partials in range(4):
    stream = api.images.generate(model="gpt-image-1", prompt=PROMPT, stream=True, partial_images=partials)
    usage = check(list(stream), partials)
    assert usage.output_tokens == 6208 + 100 * partials, usage
    expected = usage.input_tokens * 5e-6 + usage.output_tokens * 40e-6
    assert abs(usage.cost - expected) < 1e-9, (usage.cost, expected)
    costs.append(usage.cost)
assert costs == sorted(set(costs)), "a partial costs something"

# Without partial_images there is one event.
check(list(api.images.generate(model="gpt-image-2", prompt=PROMPT, stream=True)), 0)

# Headers and the events through the raw response.
raw = api.images.with_raw_response.generate(model="gpt-image-1", prompt=PROMPT, stream=True, partial_images=1)
assert raw.headers["content-type"].startswith("text/event-stream"), raw.headers
assert raw.headers["x-generation-id"].startswith("gen_")
check(list(raw.parse()), 1)

# A partial is there long before the picture.
begun = time.monotonic()
arrived = []
for event in api.images.generate(
    model="gpt-image-1", prompt=f"{PROMPT} [fake:slow_events]", stream=True, partial_images=3
):
    arrived.append(time.monotonic() - begun)
assert len(arrived) == 4 and arrived[0] < arrived[-1] - 0.3, arrived

# A provider that answers with plain JSON after all: the picture comes as an event all the same.
check(list(api.images.generate(model="gpt-image-1", prompt=f"{PROMPT} [fake:plain_json]", stream=True)), 0)

# An error before the first byte is plain HTTP, and one behind a partial comes through the stream.
try:
    api.images.generate(model="gpt-image-1", prompt=f"{PROMPT} [fake:moderation_gpt]", stream=True)
except openai.BadRequestError as error:
    assert error.code == "moderation_blocked", error
else:
    raise AssertionError("the prompt was refused upstream")
seen = []
try:
    for event in api.images.generate(
        model="gpt-image-1", prompt=f"{PROMPT} [fake:refused_after_a_draft]", stream=True, partial_images=2
    ):
        seen.append(event.type)
except openai.APIError as error:
    assert error.code == "moderation_blocked", (error, error.body)
else:
    raise AssertionError("the picture was refused upstream")
assert seen == ["image_generation.partial_image"], seen

# Edits stream alike.
image = ("otter.png", png(64, 64), "image/png")
for partials in [0, 2]:
    stream = api.images.edit(
        model="gpt-image-1", image=image, prompt=PROMPT, size="1024x1024", stream=True, partial_images=partials
    )
    usage = check(list(stream), partials, kind="image_edit", size=("png", 1024, 1024))
    assert usage.input_tokens_details.image_tokens > 0

# A test key streams as well.
events = list(client(TEST_KEY).images.generate(model="gpt-image-1", prompt=PROMPT, stream=True, partial_images=1))
assert events[-1].type == "image_generation.completed", [event.type for event in events]


async def asynchronously():
    api = async_client(_strict_response_validation=True)
    stream = await api.images.generate(model="gpt-image-1.5", prompt=PROMPT, stream=True, partial_images=2)
    check([event async for event in stream], 2)
    stream = await api.images.edit(
        model="gpt-image-2", image=io.BytesIO(png(64, 64)), prompt=PROMPT, stream=True, partial_images=1
    )
    check([event async for event in stream], 1, kind="image_edit")
    # Leaving a stream early is no trouble.
    stream = await api.images.generate(model="gpt-image-1", prompt=PROMPT, stream=True, partial_images=3)
    async for event in stream:
        break
    await stream.close()


asyncio.run(asynchronously())
