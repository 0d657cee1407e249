"""What the tasks of a job share that differ in nothing but their prompt: made, checked and written out once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from seedream_batch.expand.fingerprint import Around, RequestTexts
from seedream_batch.expand.matrix import turning
from seedream_batch.expand.protocols import BadReference, RequestRules, ResolveReference
from seedream_batch.expand.request import PROMPT, Context, FieldError, RequestTemplate
from seedream_batch.model.document import Json
from seedream_batch.model.job import REFERENCE, Job, Reference, web_address
from seedream_batch.templates.engine import TemplateError
from seedream_batch.templates.render_cache import ABSENT

STAND_IN = "https://reference.invalid/"
"""What stands for a checked local reference while the rest of the request is checked."""

MAX_IMAGES = 15
"""References and images together, at most [Seedream 4.5 API documentation]."""

_REMEMBERED: Final = 4096
"""How many shapes are kept."""
_ANY_PROMPT: Final = "x"


@dataclass(frozen=True, slots=True)
class Shape:
    """A request that the API takes, but for its prompt, and what follows from it.

    `body` has its reference images as `sha256:HEX`, and some prompt in its place. `images` is how many are asked for,
    `price` the estimate for one in millionths of a USD.
    """

    body: Mapping[str, Json]
    around: Around | None
    images: int
    model: str
    size: str
    resolution: str
    price: int


class Shapes:
    """The shapes of the requests of one job."""

    def __init__(
        self,
        job: Job,
        request: RequestTemplate,
        rules: RequestRules,
        resolve: ResolveReference,
        references: dict[str, Reference],
    ) -> None:
        """`references` is filled with every local reference met, by its SHA-256."""
        self._job = job
        self._request = request
        self._rules = rules
        self._resolve = resolve
        self._references = references
        self._texts = RequestTexts(rules.defaults)
        self._known: dict[tuple[object, ...], Shape | None] = {}
        reads = request.rest_reads
        self._reads = None if reads is None else sorted((reads & turning(job)) - {"sample"})
        self._reads_sample = reads is not None and "sample" in reads

    def of(self, context: Context) -> Shape | None:
        """The shape of a cell, remembered; None where there is a fault in it, or it may depend on anything.

        The values of axes live as long as the job does, so they can be told apart by their identity.
        """
        if self._reads is None:
            return None
        key = [id(context.get(name, ABSENT)) for name in self._reads]
        if self._reads_sample:
            key.append(context["sample"])
        found = tuple(key)
        try:
            return self._known[found]
        except KeyError:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            shape = self._known[found] = self._made(context)
            return shape

    def _made(self, context: Context) -> Shape | None:
        try:
            body = self.request(context, _ANY_PROMPT)
        except FieldError:
            return None
        checked, bad = self.with_references(body)
        return None if bad or self._rules.problems(checked) else self.shape(body)

    @property
    def prompt_reads(self) -> frozenset[str] | None:
        """The names that the prompt depends on; None where that is not known."""
        return self._request.prompt_reads

    def prompt(self, context: Context) -> str | None:
        """The prompt that the template gives for any values, also other ones of the job's vars; None where it fails."""
        template = self._request.prompt_template
        try:
            return None if template is None else template.render(context).strip()
        except TemplateError:
            return None

    def request(self, context: Context, prompt: Json = ABSENT) -> dict[str, Json]:
        """The request of a cell as its job has it, with this prompt where one is given. Raises `FieldError`."""
        body = self._request.render(context, prompt)
        body.setdefault("model", self._rules.defaults[("model",)])
        return body

    def with_references(self, body: dict[str, Json]) -> tuple[dict[str, Json], list[tuple[int, BadReference]]]:
        """The request with stand-ins for local references, for checking; `body` gets their hashes instead.

        The references that cannot be used come with their index; then `body` stays as it is.
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

    def shape(self, body: Mapping[str, Json]) -> Shape:
        """The shape of a request that the API takes."""
        defaults = self._rules.defaults
        resolution = str(body.get("resolution", defaults[("resolution",)]))
        return Shape(
            body=body,
            around=self._texts.around(body),
            images=images_asked(body),
            model=body["model"],
            size=str(body.get("size", defaults[("size",)])),
            resolution=resolution,
            price=self._job.budget.price_of(resolution),
        )

    def texts(self, shape: Shape, prompt: str, sample: int) -> tuple[str, str]:
        """The canonical text of the request of this shape with this prompt, and its fingerprint."""
        if shape.around is not None:
            return shape.around.of(prompt, sample)
        return self._texts.of({**shape.body, PROMPT: prompt}, sample)


def images_asked(body: Mapping[str, Json]) -> int:
    """How many images a valid request asks for, and is charged for in advance.

    Group mode (`auto`) without `max_images` may give as many as fit beside the references.
    """
    wanted = int(body.get("n", 1))
    if body.get("sequential_image_generation") == "auto":
        options = body.get("sequential_image_generation_options") or {}
        most = options.get("max_images")
        if most is None:
            most = wanted if wanted > 1 else MAX_IMAGES - len(body.get("image_urls") or ())
        wanted = max(wanted, int(most))
    return wanted
