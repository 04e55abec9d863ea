"""Pictures and errors through the asynchronous client, many at the same time."""

import asyncio

import openai
from easel import POOR_KEY, PROMPT, async_client, decode, fetch, measure


async def main():
    async with async_client() as api:
        answers = await asyncio.gather(
            api.images.generate(model="dall-e-2", prompt=PROMPT, n=4, size="256x256", response_format="b64_json"),
            api.images.generate(model="dall-e-3", prompt=PROMPT, quality="hd", style="vivid", response_format="b64_json"),
            api.images.generate(model="gpt-image-1", prompt=PROMPT, quality="low", size="1024x1024", output_format="jpeg"),
            api.images.generate(model="gpt-image-2", prompt=PROMPT, quality="low", size="1024x1024", background="transparent"),
            *(api.images.generate(model="dall-e-2", prompt=PROMPT, size="256x256", response_format="b64_json") for _ in range(12)),
        )
        formats = [measure(decode(answer.data[0]))[0] for answer in answers]
        assert formats == ["png", "png", "jpeg", "png", *["png"] * 12]
        assert len({answer._request_id for answer in answers}) == len(answers)

        link = await api.images.generate(model="dall-e-3", prompt=PROMPT)
        assert measure(await asyncio.to_thread(fetch, link.data[0])) == ("png", 1024, 1024)

        raw = await api.images.with_raw_response.generate(model="dall-e-2", prompt=PROMPT, size="256x256")
        assert raw.headers["x-request-id"].startswith("req_")

        models = [model.id async for model in api.models.list()]
        assert "openai/dall-e-3" in models
        assert (await api.models.retrieve("openai/dall-e-3")).id == "openai/dall-e-3"

        try:
            await api.images.generate(model="dall-e-3", prompt=PROMPT, n=2)
            raise AssertionError("n=2 was taken")
        except openai.BadRequestError as error:
            assert (error.code, error.param) == ("integer_above_max_value", "n")

    async with async_client(POOR_KEY) as api:
        try:
            await api.images.generate(model="dall-e-3", prompt=PROMPT)
            raise AssertionError("a poor account was served")
        except openai.APIStatusError as error:
            assert (error.status_code, error.code) == (402, "insufficient_balance")


asyncio.run(main())
