"""The catalog through the SDK."""

import openai
from easel import PROMPT, client

api = client()

models = {model.id: model for model in api.models.list()}
assert "openai/dall-e-2" in models and "openai/gpt-image-2" in models
for model in models.values():
    assert model.object == "model" and isinstance(model.created, int) and model.owned_by

# Ids contain slashes, which the SDK encodes.
model = api.models.retrieve("openai/dall-e-3")
assert model.id == "openai/dall-e-3"
assert model.supported_parameters["quality"]["values"] == ["standard", "hd"]
assert model.pricing["currency"] == "USD"
assert model.shutdown_date == "2026-05-12"
assert api.models.retrieve("dall-e-3").id == "openai/dall-e-3"

# A listed id can be used as it is.
assert api.images.generate(model=model.id, prompt=PROMPT).model == model.id

try:
    api.models.retrieve("nobody/nothing")
    raise AssertionError("a model that is not there was found")
except openai.NotFoundError as error:
    assert error.code == "model_not_found" and error.type == "invalid_request_error"
