"""Prepare reference images for a request: as URLs of uploads, or inlined as data URIs."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable

from seedream_batch.client.service import UPLOAD_LIFETIME
from seedream_batch.engine.context import RunContext
from seedream_batch.errors import StorageError
from seedream_batch.files.references import data_uri, reference_bytes
from seedream_batch.model.job import REFERENCE, Reference, Send
from seedream_batch.model.task import TaskRecord

UPLOAD_MARGIN = 2 * 3600.0
"""Seconds an uploaded reference must remain valid to be used: the service fetches it some time after the submission."""


class ReferenceSender:
    """Replaces the hashes that stand for reference images in a task's body."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._uploading: dict[str, asyncio.Lock] = {}
        self._dead: dict[str, str] = {}
        """The links that the service had lost, by the hash of their image: each image is uploaded again once."""
        self._sent_again: set[int] = set()
        """Tasks resubmitted for that reason: each once, since another upload may get the same link."""

    async def with_uploads(self, task: TaskRecord) -> str | None:
        """Return the request with local references as URLs of uploads; None if the task's own body is to be sent.

        The result is stored with the intent: a later upload gets another URL, and a resend has to be identical. Raise
        `ServiceError`, `StorageError` or `BadReferenceImage`.
        """
        if REFERENCE not in task.body or self._context.job.send is Send.INLINE:
            return None
        return await self._replace(task.body, self._uploaded)

    async def with_inlined(self, body: str) -> str:
        """Return the request as sent: remaining references by hash become data URIs.

        Raise `StorageError` or `BadReferenceImage`.
        """
        return await self._replace(body, self._inlined) if REFERENCE in body else body

    async def forget(self, task: TaskRecord, sent: str) -> bool:
        """Forget the uploads in a refused request; return whether the task can be sent again with new ones."""
        if task.id in self._sent_again:
            return False
        again = False
        own, links = json.loads(task.body).get("image_urls", []), json.loads(sent).get("image_urls", [])
        for reference, link in zip(own, links, strict=False):
            if reference.startswith(REFERENCE) and link.startswith("http"):
                sha256 = reference.removeprefix(REFERENCE)
                again = await self._forget(sha256, link) or again
        if again:
            self._sent_again.add(task.id)
        return again

    async def _forget(self, sha256: str, link: str) -> bool:
        context = self._context
        origin = context.service.origin
        async with self._uploading.setdefault(sha256, asyncio.Lock()):
            if sha256 in self._dead:
                return self._dead[sha256] == link
            self._dead[sha256] = link
            if await context.writer.do(context.manifest.images.upload, sha256, origin, 0.0) == link:
                await context.writer.do(context.manifest.images.forget_upload, sha256, origin)
            return True

    async def _replace(self, text: str, sendable: Callable[[Reference], Awaitable[str]]) -> str:
        body = json.loads(text)
        urls = body.get("image_urls", [])
        for index, url in enumerate(urls):
            if url.startswith(REFERENCE):
                reference = self._context.references.get(url.removeprefix(REFERENCE))
                if reference is None:
                    raise StorageError("its reference image is no longer in the job")
                urls[index] = await sendable(reference)
        return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    async def _inlined(self, reference: Reference) -> str:
        return data_uri(reference, await asyncio.to_thread(self._bytes, reference))

    async def _uploaded(self, reference: Reference) -> str:
        context = self._context
        origin = context.service.origin
        # Tasks that share a reference wait for one upload instead of each making its own.
        async with self._uploading.setdefault(reference.sha256, asyncio.Lock()):
            good_until = context.clock.unix() + UPLOAD_MARGIN
            known = await context.writer.do(context.manifest.images.upload, reference.sha256, origin, good_until)
            if known is not None:
                return known
            data = await asyncio.to_thread(self._bytes, reference)
            url = await context.control.free(context.service.upload(data, reference.media_type))
            expires = context.clock.unix() + UPLOAD_LIFETIME
            await context.writer.do(context.manifest.images.uploaded, reference.sha256, origin, url, expires)
            return url

    def _bytes(self, reference: Reference) -> bytes:
        data, _ = reference_bytes(reference.text, self._context.job.folder)
        if hashlib.sha256(data).hexdigest() != reference.sha256:
            raise StorageError(f"the reference image {reference.text[:80]} was changed during the run")
        return data
