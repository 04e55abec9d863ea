"""A connection that breaks while the picture is painted, twice: the client asks again, and gets that very picture."""

from easel import PROMPT, client, decode, measure

api = client(max_retries=2)
raw = api.images.with_raw_response.generate(
    model="dall-e-2", prompt=PROMPT, size="256x256", response_format="b64_json"
)
assert raw.retries_taken == 2, raw.retries_taken
assert raw.headers["idempotent-replayed"] == "true"
answer = raw.parse()
assert measure(decode(answer.data[0])) == ("png", 256, 256)
assert answer.usage.cost == 0.016, answer.usage
