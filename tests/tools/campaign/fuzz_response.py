"""Answers of the service, fuzzed."""

from __future__ import annotations

import re

from fuzz_claims import CORPUS, claim

NOW = 1_800_000_000.0


class ResponseTarget:
    """Answers of the service: to submissions, polls, uploads and questions for the balance."""

    def __init__(self, _folder):
        import httpx

        from seedream_batch.client import error_details as faults
        from seedream_batch.client import wire
        from seedream_batch.model.outcome import Polled, Submitted

        self._wire = wire
        self._longest = faults.LONGEST_WAIT
        self._headers = httpx.Headers
        self._submitted = Submitted
        self._polled = Polled
        self._checks = {b"s": self._submission, b"p": self._poll, b"b": self._balance, b"u": self._upload}

    def __call__(self, data):
        head, _, body = data.partition(b"\n\n")
        first, *lines = head.split(b"\n")
        digits = re.search(rb"[1-9][0-9]{2}", first)
        status = int(digits.group()) if digits else 200
        headers = self._headers([line.partition(b":")[::2] for line in lines])
        answer = self._wire.Answer(status, headers, body, whole=not first.endswith(b"~"))
        self._checks.get(first[:1], self._submission)(answer)

    def _submission(self, answer):
        found = self._wire.submission(answer, NOW)
        accepted, ids, good = found.kind is self._submitted.ACCEPTED, found.task_ids, 200 <= answer.status < 300
        claim(accepted == bool(ids), "accepted means that there is a task id", found)
        named = found.kind not in {self._submitted.ACCEPTED, self._submitted.UNKNOWN}
        claim(not good or not named or found.message or found.code, "2xx is only taken for a no that says why", found)
        redirected = 300 <= answer.status < 400
        claim(good or redirected or not accepted, "only 2xx, or a redirect that names a task, is a yes", found)
        claim(len(set(ids)) == len(ids), "a task id is told once", ids)
        for one in ids:
            claim(one.isprintable() and one == one.strip() and 0 < len(one) <= 256, "a task id is usable", one)
        claim(accepted or not found.replayed, "a replay is accepted")
        self._told(found)
        claim(found == self._wire.submission(answer, NOW), "an answer means the same again")

    def _poll(self, answer):
        for task_id in (None, "task_1"):
            found = self._wire.poll(answer, NOW, task_id)
            completed = found.kind is self._polled.COMPLETED
            ended = completed or found.kind is self._polled.FAILED
            claim(not ended or 200 <= answer.status < 300, "only 2xx ends a task", found)
            going = found.kind is self._polled.RUNNING
            claim(completed or going or not found.images, "a task that failed has no images", found)
            claim(found.cost is None or self._is_amount(found.cost, 0), "a cost is an amount", found.cost)
            urls = [image.url for image in found.images]
            claim(len(set(urls)) == len(urls), "a picture is told once")
            for image in found.images:
                claim(self._is_link(image.url), "a link is a link", image.url)
                claim(image.expires_at is None or 1e9 < image.expires_at < 1e11, "a time is a time", image.expires_at)
            self._told(found, *found.notes)
            claim(found == self._wire.poll(answer, NOW, task_id), "an answer means the same again")

    def _balance(self, answer):
        document = self._wire.parse(answer)
        found = self._wire.balance(document)
        for amount in (found.remaining, found.used) if found else ():
            claim(amount is None or self._is_amount(amount, -(10**18)), "an amount is an amount", amount)
        claim(self._wire.fault_of(document, answer).message.isprintable(), "what the service says is one clean line")

    def _upload(self, answer):
        url = self._wire.upload_url(self._wire.parse(answer))
        claim(url is None or self._is_link(url), "a link is a link", url)

    def _told(self, found, *notes):
        for text in (found.message, found.code, *notes):
            claim(text.isprintable() and len(text) <= 700, "what the service says is one clean line", text)
        wait = found.retry_after
        claim(wait is None or 0 <= wait <= self._longest, "a wait is bounded", wait)

    @staticmethod
    def _is_amount(amount, least):
        return type(amount) is int and least <= amount <= 10**18

    @staticmethod
    def _is_link(url):
        return bool(re.match(r"https?://|data:", url)) and url.isprintable()


def response_seeds():
    yield from (CORPUS / "answers.txt").read_bytes().split(b"\n%%%\n")


def heavy_answers():
    yield b'p 200\n\n{"data":' + b"[" * 10**6
    yield b"s 200\n\n" + b'{"data":' * 10**5
    yield b's 200\n\n{"data": [{"task_id": ' + b"9" * 10**6 + b"}]}"
    yield b'p 200\n\n{"data": {"status": "failed", "error": "' + b"\\u001b" * 10**5 + b'"}}'
    yield b'p 200\n\n{"data": {"status": "completed", "result": {"images": [' + b"0," * 10**4 + b"0]}}}"
    yield b's 200\n\n{"data": [' + b",".join(b'{"id": %d}' % n for n in range(10**4)) + b"]}"
    yield b"p 429\nretry-after: " + b"9" * 10**5 + b"\n\n"


RESPONSE_WORDS = """
    s p b u 200 202 204 301 400 401 402 403 404 409 413 429 500 502 503 ~ retry-after: idempotency-replayed: true
    "data": "task_id": "id": "status": "submitted" "processing" "completed" "failed" "cancelled" "result": "images":
    "url": "https://a.b/c.png" "expires_at": "cost": "credits_cost": "error": "code": "type": "message": "success":
    "detail": "idempotency_in_progress" "idempotency_unavailable" "build_request_failed: "remain_balance":
    "used_balance": "unlimited_quota": null false NaN Infinity -Infinity 1e999 -0.0 -1 0.035 "0.035" "nan" 1e400
    "task_1" [] {} [ ] { } , : \\u0000 \\ud800 \\u2028 \\u001b Thu, 01 Jan 1970 00:00:00 GMT -9999 +9999 1e309
"""
