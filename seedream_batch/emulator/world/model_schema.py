"""The document of GET /v1/model-schema: the parameters of a submission."""

from typing import Any

from seedream_batch.emulator.world.request_rules import MAX_IMAGES, MODELS, RESOLUTIONS, SIZES


def model_schema(model: str) -> dict[str, Any]:
    """Return the document of a model. Limits that span fields are in descriptions only."""
    count = {"type": "integer", "minimum": 1, "maximum": MAX_IMAGES}
    parameters: dict[str, Any] = {
        "model": {"type": "string", "enum": list(MODELS), "default": MODELS[0]},
        "prompt": {"type": "string", "minLength": 1},
        "size": {"type": "string", "enum": list(SIZES), "default": "1:1"},
        "resolution": {"type": "string", "enum": list(RESOLUTIONS), "default": "2K"},
        "n": {**count, "default": 1, "description": "with image_urls only, and at most 15 minus their number"},
        "image_urls": {"type": "array", "items": {"type": "string"}},
        "optimize_prompt_options": {
            "type": "object",
            "properties": {"mode": {"type": "string", "enum": ["standard", "fast"], "default": "standard"}},
        },
        "sequential_image_generation": {"type": "string", "enum": ["disabled", "auto"], "default": "disabled"},
        "sequential_image_generation_options": {"type": "object", "properties": {"max_images": count}},
        "watermark": {"type": "boolean", "default": False},
    }
    schema = {"type": "object", "required": ["model", "prompt"], "properties": parameters}
    return {"success": True, "data": {"model": model, "type": "image", "schema": schema}}
