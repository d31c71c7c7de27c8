"""The routes of IOPaint's HTTP interface that its clients need, answered as IOPaint answers them.

A program written for IOPaint changes the port only. The request is JSON with `image` and `mask` in
base64. `sd_seed` chooses the variant. Some forty other fields steer diffusion models, and are
ignored, as IOPaint's own erasing models ignore them. The answer is a PNG. An error has its reason
in `detail` and `errors`.
"""

import random
from collections.abc import Sequence
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.params import Depends

from ..options import LARGEST_SEED
from . import request_body
from .guard import IOPAINT
from .inpaint_request import FILES, Filled
from .job_routes import work_on
from .jobs import Job
from .request_terms import RequestError, invalid_option
from .service import Service

_EXAMPLE = "paint_by_example_example_image"  # a third file, which no model here uses
_DEFAULT_SEED = 42  # IOPaint's default, which its clients send
_RANDOM_SEEDS = 1, 99_999_999  # as IOPaint draws them for -1


def add_iopaint_routes(app: FastAPI, service: Service, dependencies: Sequence[Depends]) -> None:
    """Adds `/api/v1/`, which the OpenAPI document leaves to IOPaint's own.

    `dependencies` make the routes ask for the token.
    """
    options: dict[str, Any] = {"dependencies": dependencies, "include_in_schema": False}

    @app.post(f"{IOPAINT}inpaint", **options)
    async def inpaint(request: Request) -> Response:
        request_body.is_json(request, [request_body.JSON])
        read, work = request_body.read_json, partial(_inpaint, service)
        (filled, seed), job = await work_on(service, request, read, work)
        service.metrics.queue_seconds.observe(job.queue_seconds)
        service.metrics.run_seconds.observe(job.run_seconds)
        headers = {"X-Seed": str(seed), "Cache-Control": "no-store"}
        return Response(filled.content, media_type="image/png", headers=headers)

    @app.get(f"{IOPAINT}model", **options)
    async def model() -> dict[str, Any]:
        return _model_info(service.default)

    @app.post(f"{IOPAINT}model", **options)
    async def switch_model(request: Request) -> dict[str, Any]:
        request_body.is_json(request, [request_body.JSON])
        request_body.check_length(request, request_body.LONGEST_REST)
        limited = request_body.limited(request, request_body.LONGEST_REST)
        name = request_body.parse_json(await request_body.read_json(limited), (), None).get("name")
        if name != service.default:
            raise invalid_option(
                f"name must be {service.default}, got {str(name)[:100]!r}; start the server with "
                "another --model, or name it in the field model of /v1/inpaint"
            )
        return _model_info(service.default)

    @app.get(f"{IOPAINT}server-config", **options)
    async def server_config() -> dict[str, Any]:
        return {
            "plugins": [],
            "modelInfos": [_model_info(service.default)],
            "removeBGModel": "",
            "removeBGModels": [],
            "realesrganModel": "",
            "realesrganModels": [],
            "interactiveSegModel": "",
            "interactiveSegModels": [],
            "enableFileManager": False,
            "enableAutoSaving": False,
            "enableControlnet": False,
            "controlnetMethod": None,
            "disableModelSwitch": True,
            "isDesktop": False,
            "samplers": [],
        }

    @app.get(f"{IOPAINT}samplers", **options)
    async def samplers() -> list[str]:
        return []


def _inpaint(service: Service, content: bytearray, job: Job) -> tuple[Filled, int]:
    """Fills, and says which seed the answer names; its default is the fill of seed 0 here."""
    fields = request_body.parse_json(content, (*FILES, _EXAMPLE), None)
    for name in FILES:
        if name not in fields:
            raise RequestError(422, f"invalid_{name}", f"{name} must be base64, got none")
    seed = _seed_of(fields.get("sd_seed", _DEFAULT_SEED))
    given = {name: fields[name] for name in FILES}
    if seed != _DEFAULT_SEED and service.sessions[service.default].has_variants:
        given["seed"] = seed % (LARGEST_SEED + 1)
    filled, _ = service.inpaint(given, job)
    return filled, seed


def _seed_of(value: Any) -> int:
    """The number that IOPaint reads, which takes texts of digits too; the default for others."""
    try:
        seed = int(value)
    except (TypeError, ValueError, OverflowError):
        return _DEFAULT_SEED
    if seed == -1:
        return random.randint(*_RANDOM_SEEDS)
    return seed if abs(seed) < 2**63 else _DEFAULT_SEED


def _model_info(name: str) -> dict[str, Any]:
    """A model as IOPaint describes an erasing one."""
    abilities = ("strength", "outpainting", "lcm_lora", "controlnet", "brushnet", "powerpaint_v2")
    return {
        "name": name,
        "path": name,
        "model_type": "inpaint",
        "is_single_file_diffusers": False,
        "need_prompt": False,
        "controlnets": [],
        "brushnets": [],
        **{f"support_{ability}": False for ability in abilities},
    }
