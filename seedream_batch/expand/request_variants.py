"""Requests without their prompt: rendered, checked and encoded once for all tasks that share one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from seedream_batch.expand.fingerprint import PromptFrame, RequestTexts
from seedream_batch.expand.matrix import varying_names
from seedream_batch.expand.request_template import PROMPT, Context, FieldError, RequestTemplate
from seedream_batch.model.document import Json
from seedream_batch.model.job import REFERENCE, Job, Reference, web_address
from seedream_batch.templates.engine import TemplateError
from seedream_batch.templates.render_cache import ABSENT
from seedream_batch.validate.request_schema import RequestSchema

STAND_IN = "https://reference.invalid/"
"""Replaces a checked local reference while the rest of the request is checked."""

MAX_IMAGES = 15
"""Most references plus images [Seedream 4.5 API documentation]."""

_REMEMBERED: Final = 4096
"""Number of cached variants."""
_ANY_PROMPT: Final = "x"


class BadReference(ValueError):
    """Raised for an unusable reference image; the message gives the limit and the measured value."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(message)


ResolveReference = Callable[[str], Reference]
"""Takes an entry of `image_urls` (a path or a data URI, not a URL) and returns the checked image; may raise
`BadReference`."""


@dataclass(frozen=True, slots=True)
class RequestVariant:
    """A valid request without its prompt, and what follows from it.

    `body` has its reference images as `sha256:HEX`, and an arbitrary prompt. `images` is how many are asked for,
    `price` the estimate for one in millionths of a USD.
    """

    body: Mapping[str, Json]
    around: PromptFrame | None
    images: int
    model: str
    size: str
    resolution: str
    price: int


class RequestVariants:
    """The request variants of one job."""

    def __init__(
        self,
        job: Job,
        request: RequestTemplate,
        rules: RequestSchema,
        resolve: ResolveReference,
        references: dict[str, Reference],
    ) -> None:
        """Prepare; `references` will collect every local reference met, by its SHA-256."""
        self._job = job
        self._request = request
        self._rules = rules
        self._resolve = resolve
        self._references = references
        self._texts = RequestTexts(rules.defaults)
        self._known: dict[tuple[object, ...], RequestVariant | None] = {}
        reads = request.rest_reads
        self._reads = None if reads is None else sorted((reads & varying_names(job)) - {"sample"})
        self._reads_sample = reads is not None and "sample" in reads

    def of(self, context: Context) -> RequestVariant | None:
        """Return the cached variant for a cell; None if it has a problem, or if its dependencies are unknown.

        The values of axes live as long as the job, so they can be identified by `id()`.
        """
        if self._reads is None:
            return None
        parts = [id(context.get(name, ABSENT)) for name in self._reads]
        if self._reads_sample:
            parts.append(context["sample"])
        key = tuple(parts)
        try:
            return self._known[key]
        except KeyError:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            variant = self._known[key] = self._build(context)
            return variant

    def _build(self, context: Context) -> RequestVariant | None:
        try:
            body = self.request(context, _ANY_PROMPT)
        except FieldError:
            return None
        checked, bad = self.with_references(body)
        return None if bad or self._rules.problems(checked) else self.shape(body)

    @property
    def prompt_reads(self) -> frozenset[str] | None:
        """The names that the prompt depends on; None if unknown."""
        return self._request.prompt_reads

    def prompt(self, context: Context) -> str | None:
        """Render the prompt for any values, also other ones of the job's vars; None if that fails."""
        template = self._request.prompt_template
        try:
            return None if template is None else template.render(context).strip()
        except TemplateError:
            return None

    def request(self, context: Context, prompt: Json = ABSENT) -> dict[str, Json]:
        """Render the request of a cell, with the given prompt if any. Raises `FieldError`."""
        body = self._request.render(context, prompt)
        body.setdefault("model", self._rules.defaults[("model",)])
        return body

    def with_references(self, body: dict[str, Json]) -> tuple[dict[str, Json], list[tuple[int, BadReference]]]:
        """Return the request with stand-ins for local references, for checking; `body` gets their hashes instead.

        Also returns the unusable references with their index; if there are any, `body` stays unchanged.
        """
        urls = body.get("image_urls")
        if not isinstance(urls, list):
            return body, []
        sent: list[Json] = []
        stand_ins: list[Json] = []
        bad: list[tuple[int, BadReference]] = []
        for index, text in enumerate(urls):
            address = web_address(text.strip()) if isinstance(text, str) else text
            if address is not None:
                sent.append(address)
                stand_ins.append(address)
                continue
            try:
                reference = self._resolve(text)
            except BadReference as error:
                bad.append((index, error))
                continue
            self._references[reference.sha256] = reference
            sent.append(REFERENCE + reference.sha256)
            stand_ins.append(STAND_IN + reference.sha256)
        if bad:
            return body, bad
        body["image_urls"] = sent
        return {**body, "image_urls": stand_ins}, []

    def shape(self, body: Mapping[str, Json]) -> RequestVariant:
        defaults = self._rules.defaults
        resolution = str(body.get("resolution", defaults[("resolution",)]))
        return RequestVariant(
            body=body,
            around=self._texts.around(body),
            images=images_asked(body),
            model=body["model"],
            size=str(body.get("size", defaults[("size",)])),
            resolution=resolution,
            price=self._job.budget.price_of(resolution),
        )

    def texts(self, variant: RequestVariant, prompt: str, sample: int) -> tuple[str, str]:
        """Return the canonical text of this variant with this prompt, and its fingerprint."""
        if variant.around is not None:
            return variant.around.of(prompt, sample)
        return self._texts.of({**variant.body, PROMPT: prompt}, sample)


def images_asked(body: Mapping[str, Json]) -> int:
    """Return how many images a valid request asks for, and is charged for in advance.

    Group mode (`auto`) without `max_images` may give as many as the references leave room for.
    """
    wanted = int(body.get("n", 1))
    if body.get("sequential_image_generation") == "auto":
        options = body.get("sequential_image_generation_options") or {}
        most = options.get("max_images")
        if most is None:
            most = wanted if wanted > 1 else MAX_IMAGES - len(body.get("image_urls") or ())
        wanted = max(wanted, int(most))
    return wanted
