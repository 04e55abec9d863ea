"""Pictures that are fetched later (`Prefer: respond-async`), with what the client lets one add and nothing else."""

import time
from types import SimpleNamespace

import openai

from easel import POOR_KEY, PROMPT, client, decode, fetch, measure, png

api = client()
LATER = {"Prefer": "respond-async"}


def begin(raw):
    """What the answer says at once."""
    assert raw.status_code == 202, raw.status_code
    assert raw.headers["preference-applied"] == "respond-async"
    begun = raw.http_response.json()
    assert (begun["object"], begun["status"], begun["data"]) == ("image.generation", "in_progress", [])
    assert raw.headers["x-generation-id"] == begun["id"]
    # The client's own paths begin behind the base address.
    location = raw.headers["location"]
    assert location == f"/v1/images/generations/{begun['id']}"
    return location.removeprefix("/v1"), int(raw.headers["retry-after"])


def follow(place, pause, query=None):
    """What became of it, asked for as often as the server likes."""
    response = type(raw.http_response)
    while True:
        time.sleep(pause)
        answer = api.get(place, cast_to=response, options={"params": query or {}})
        if answer.json()["status"] != "in_progress":
            assert "retry-after" not in answer.headers
            return answer.json()
        pause = int(answer.headers["retry-after"])
        assert 1 <= pause <= 10


def picture(generation):
    """As the client's own type has it."""
    shown = generation["data"][0]
    return SimpleNamespace(url=shown.get("url"), b64_json=shown.get("b64_json"))


# A link, from the answer as it came.
raw = api.images.with_raw_response.generate(model="dall-e-3", prompt=PROMPT, extra_headers=LATER)
done = follow(*begin(raw))
assert (done["status"], done["provider"], done["cost"]) == ("completed", "openai", 0.04), done
assert measure(fetch(picture(done))) == ("png", 1024, 1024)

# An edit, and its picture as base64; the header is one of all requests of this client.
patient = client(default_headers=LATER)
raw = patient.images.with_raw_response.edit(model="gpt-image-1", image=png(64, 64), prompt=PROMPT, quality="low")
done = follow(*begin(raw), {"response_format": "b64_json"})
assert done["status"] == "completed", done
assert measure(decode(picture(done)))[0] == "png"

# Without a look at the head, the object is there all the same, with fields that the type does not have.
begun = api.images.generate(model="dall-e-2", prompt=PROMPT, size="256x256", extra_headers=LATER)
assert begun.id.startswith("gen_") and begun.status == "in_progress" and begun.data == [], begun
done = follow(f"/images/generations/{begun.id}", 0.1)
assert (done["status"], done["model"]) == ("completed", "openai/dall-e-2")

# What is refused is refused at once.
try:
    client(POOR_KEY).images.generate(model="dall-e-3", prompt=PROMPT, extra_headers=LATER)
    raise AssertionError("nobody pays")
except openai.APIStatusError as error:
    assert (error.status_code, error.code) == (402, "insufficient_balance"), error
