"""Answers as gateways, proxies and other versions of the service give them: seeded changes of a real answer.

Each change is a small function that alters a `Reply` in place. It says at which endpoints it makes sense, and whether
it takes the place of the service: then the request never reaches the service, and nothing is billed.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from PIL import Image

API = ("submit", "poll", "balance", "upload")
ALL = (*API, "image")


@dataclass(slots=True)
class Reply:
    """One HTTP answer, with everything about it that can be odd."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    reason: str | None = None
    before: bytes = b""
    """Interim answers before the real one."""
    framing: str = "length"
    """How the end of the body is marked: length, chunked, both, close, extensions, trailer."""
    surplus: int = 0
    """Bytes that Content-Length announces and that never come."""
    keep: int | None = None
    """Bytes of the body that are sent before the connection is closed."""
    reset: bool = False
    """Whether the connection is reset instead of closed."""

    def set_header(self, name: str, value: str) -> None:
        """Replaces a header."""
        self.drop_header(name)
        self.headers.append((name, value))

    def drop_header(self, name: str) -> None:
        """Removes a header."""
        self.headers = [(one, value) for one, value in self.headers if one.lower() != name.lower()]

    def document(self) -> Any:
        """The body as JSON; an empty object where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return {}

    def set_document(self, document: Any) -> None:
        """Replaces the body by JSON."""
        self.body = json.dumps(document).encode()

    def page(self, text: str) -> None:
        """Replaces the body by a page of HTML."""
        self.body = f"<!DOCTYPE html><html><head><title>{text}</title></head><body>{text}</body></html>".encode()
        self.set_header("Content-Type", "text/html; charset=utf-8")

    def wire(self) -> tuple[bytes, bool]:
        """The bytes to send, and whether the connection is closed after them."""
        names = {name.lower() for name, _ in self.headers}
        reason = HTTPStatus(self.status).phrase if self.reason is None and self.status in _KNOWN else self.reason or ""
        lines = [f"HTTP/1.1 {self.status} {reason}"] + [f"{name}: {value}" for name, value in self.headers]
        body = self.body
        if self.framing in {"chunked", "extensions", "trailer", "both"}:
            if "transfer-encoding" not in names:
                lines.append("Transfer-Encoding: chunked")
            if self.framing == "both":
                lines.append(f"Content-Length: {len(body)}")
            body = _chunks(body, self.framing)
        elif self.framing == "length" and "content-length" not in names:
            lines.append(f"Content-Length: {len(body) + self.surplus}")
        close = self.framing in {"close", "both"} or self.keep is not None or self.surplus > 0
        if close:
            lines.append("Connection: close")
        head = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"
        return self.before + head + body[: self.keep], close


_KNOWN = {status.value for status in HTTPStatus}


def _chunks(body: bytes, how: str) -> bytes:
    extension = b";name=value" if how == "extensions" else b""
    parts = [body[at : at + 1000] for at in range(0, len(body), 1000)]
    sent = b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts)
    return sent + b"0\r\n" + (b"X-Checksum: 1\r\n" if how == "trailer" else b"") + b"\r\n"


@dataclass(slots=True)
class About:
    """What a change may use: the task of the answer, another task, and the address of the gateway."""

    endpoint: str
    task_id: str
    other_id: str
    origin: str
    dice: random.Random


@dataclass(frozen=True, slots=True)
class Change:
    """A change by its name."""

    name: str
    endpoints: tuple[str, ...]
    make: Callable[[Reply, About], None]
    instead: bool = False
    """Whether the gateway answers by itself, and the service is never asked."""


CHANGES: dict[str, Change] = {}


def _change(
    name: str, *endpoints: str, instead: bool = False
) -> Callable[[Callable[[Reply, About], None]], Callable[[Reply, About], None]]:
    def register(make: Callable[[Reply, About], None]) -> Callable[[Reply, About], None]:
        CHANGES[name] = Change(name, endpoints, make, instead)
        return make

    return register


def _several(prefix: str, *endpoints: str, instead: bool = False, **makes: Any) -> None:
    """Registers one change for each way to make it."""
    for name, make in makes.items():
        _change(f"{prefix} {name.replace('_', ' ')}", *endpoints, instead=instead)(make)


# What the bytes of a text look like.


def _inner(reply: Reply, member: str, value: str) -> None:
    """Adds a member with an odd text at the top, written as it is."""
    at = reply.body.find(b"{")
    if at >= 0:
        rest = reply.body[at + 1 :]
        comma = b"" if rest.lstrip().startswith(b"}") else b","
        reply.body = reply.body[: at + 1] + json.dumps(member).encode() + b":" + value.encode("latin-1") + comma + rest


def _set_body(make: Callable[[bytes], bytes]) -> Callable[[Reply, About], None]:
    def change(reply: Reply, _: About) -> None:
        reply.body = make(reply.body)

    return change


_several(
    "text:", *API,
    byte_order_mark=_set_body(lambda body: b"\xef\xbb\xbf" + body),
    blank_lines_around=_set_body(lambda body: b"\r\n\r\n  " + body + b"\n\n"),
    invalid_utf_8=lambda reply, _: _inner(reply, "note", '"caf\xe9 \xff\xfe"'),
    latin_1_and_says_so=lambda reply, _: (
        _inner(reply, "note", '"caf\xe9"'), reply.set_header("Content-Type", "application/json; charset=iso-8859-1")
    ),
    utf_16=_set_body(lambda body: body.decode("utf-8", "replace").encode("utf-16")),
    a_lone_surrogate=lambda reply, _: _inner(reply, "note", '"\\ud800"'),
    a_nul_byte=lambda reply, _: _inner(reply, "note", '"a\x00b"'),
    a_tab_in_a_string=lambda reply, _: _inner(reply, "note", '"a\tb"'),
    a_prefix_against_hijacking=_set_body(lambda body: b")]}',\n" + body),
    a_comment_of_the_gateway_after_it=_set_body(lambda body: body + b"\n<!-- cached by edge-7 -->"),
    a_huge_number=lambda reply, _: _inner(reply, "trace", "1" + "0" * 5000),
    not_a_number=lambda reply, _: _inner(reply, "trace", "NaN"),
    deep_nesting=lambda reply, _: _inner(reply, "trace", "[" * 3000 + "]" * 3000),
    a_member_twice=lambda reply, _: _inner(reply, "data", "null"),
    another_content_type=lambda reply, _: reply.set_header("Content-Type", "text/plain"),
    no_content_type=lambda reply, _: reply.drop_header("Content-Type"),
    a_charset_nobody_knows=lambda reply, _: reply.set_header("Content-Type", "application/json; charset=klingon"),
)  # fmt: skip

# How a body is framed and coded.


def _frame(how: str) -> Callable[[Reply, About], None]:
    def change(reply: Reply, _: About) -> None:
        reply.framing = how

    return change


def _coded(name: str, code: Callable[[bytes], bytes] = lambda body: body) -> Callable[[Reply, About], None]:
    def change(reply: Reply, _: About) -> None:
        reply.set_header("Content-Encoding", name)
        reply.body = code(reply.body)

    return change


def _cut(reply: Reply, about: About) -> None:
    reply.keep = about.dice.randrange(len(reply.body) + 1)


def _cut_late(reply: Reply, _: About) -> None:
    reply.keep = max(0, len(reply.body) - 1)


def _reset(reply: Reply, about: About) -> None:
    _cut(reply, about)
    reply.reset = True


def _too_long(reply: Reply, _: About) -> None:
    reply.surplus = 7


_several(
    "frame:", *ALL,
    chunked=_frame("chunked"), both_lengths=_frame("both"), no_length=_frame("close"),
    chunks_with_extensions=_frame("extensions"), a_trailer=_frame("trailer"),
    cut=_cut, cut_before_the_last_byte=_cut_late, reset=_reset, a_length_too_long=_too_long,
    gzip=_coded("gzip", gzip.compress), x_gzip=_coded("x-gzip", gzip.compress),
    deflate=_coded("deflate", zlib.compress),
    two_gzip_members=_coded("gzip", lambda body: gzip.compress(body[:20]) + gzip.compress(body[20:])),
    gzip_twice=_coded("gzip, gzip", lambda body: gzip.compress(gzip.compress(body))),
    gzip_without_its_end=_coded("gzip", lambda body: gzip.compress(body)[:-8]),
    gzip_with_junk_after_it=_coded("gzip", lambda body: gzip.compress(body) + b"\0" * 8),
    says_gzip_and_is_not=_coded("gzip"), says_br_and_is_not=_coded("br"), aws_chunked=_coded("aws-chunked"),
    empty_encoding=_coded(""), encoding_utf_8=_coded("UTF-8"), identity=_coded("identity"),
    encoding_of_nobody=_coded("x-edge"),
    gzip_and_does_not_say_so=_set_body(gzip.compress),
)  # fmt: skip

# Headers.


def _header(name: str, value: str) -> Callable[[Reply, About], None]:
    def change(reply: Reply, _: About) -> None:
        reply.headers.append((name, value))

    return change


def _early(text: bytes) -> Callable[[Reply, About], None]:
    def change(reply: Reply, _: About) -> None:
        reply.before = text

    return change


def _reason(text: str) -> Callable[[Reply, About], None]:
    def change(reply: Reply, _: About) -> None:
        reply.reason = text

    return change


_several(
    "header:", *ALL,
    of_13_KB=_header("Content-Security-Policy", "img-src https://a.example " * 500),
    of_62_KB=_header("X-Trace", "t" * 62_000),
    a_hundred_cookies=lambda reply, _: reply.headers.extend(("Set-Cookie", f"c{n}=v; Path=/") for n in range(100)),
    bytes_above_ascii=_header("X-Edge", "caf\xe9"),
    empty=_header("X-Empty", ""),
    content_type_twice=_header("Content-Type", "text/html"),
    an_absurd_date=_header("Date", "Thu, 99 Foo 12345 99:99:99 GMT"),
    an_absurd_age=_header("Age", "-1e999"),
    retry_after_of_another_kind=_header("Retry-After", "P1D"),
    an_odd_link=_header("Link", "<http://[::bad>; rel=next"),
    early_hints=_early(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"),
    continue_first=_early(b"HTTP/1.1 100 Continue\r\n\r\n"),
    an_empty_reason=_reason(""),
    a_reason_above_ascii=_reason("tr\xe8s bien"),
)  # fmt: skip

# Gateways that answer by themselves.

_BLOCKED = "Sorry, you have been blocked"


def _block(status: int) -> Callable[[Reply, About], None]:
    def change(reply: Reply, _: About) -> None:
        reply.status = status
        reply.page(f"{status} {_BLOCKED}")

    return change


for _status in (200, 201, 204, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 413, 415, 418, 421, 422, 423, 425,
                426, 429, 431, 451, 499, 500, 501, 502, 503, 504, 508, 511,
                520, 522, 524, 525, 530, 599, 777, 999):  # fmt: skip
    _change(f"block page: {_status}", *ALL, instead=True)(_block(_status))


def _says(status: int, document: Any) -> Callable[[Reply, About], None]:
    def change(reply: Reply, _: About) -> None:
        reply.status = status
        reply.set_header("Content-Type", "application/json")
        reply.set_document(document)

    return change


_QUOTA = {
    "insufficient_user_quota": {"error": {"code": "insufficient_user_quota", "message": "user quota is not enough"}},
    "quota exceeded": {"error": {"message": "You exceeded your current quota", "type": "insufficient_quota"}},
    "balance in Chinese": {"success": False, "message": "\u4f59\u989d\u4e0d\u8db3\uff0c\u8bf7\u5145\u503c"},
    "a bare text": "quota exceeded",
}
for _word, _document in _QUOTA.items():
    for _status in (200, 400, 402, 403, 429):
        _change(f"quota: {_word}, {_status}", "submit", "upload", "balance", instead=True)(_says(_status, _document))

_ERRORS_IN_200: dict[str, Any] = {
    "an error object": {"error": {"code": 500, "message": "upstream failed"}},
    "a code of its own": {"code": 503, "message": "no channel is available", "data": None},
    "success is false": {"success": False, "message": "try later"},
    "an error text": {"error": "internal"},
    "null": None,
    "an empty list": {"code": 200, "data": []},
    "an empty object": {},
    "a number": 42,
    "a text": "ok",
    "a null id": {"code": 200, "data": [{"task_id": None, "status": "submitted"}]},
    "an empty id": {"code": 200, "data": [{"task_id": "", "status": "submitted"}]},
    "an id that is an object": {"code": 200, "data": [{"task_id": {"a": 1}}]},
    "a list of lists": [[[]]],
}
for _word, _document in _ERRORS_IN_200.items():
    _change(f"200: {_word}", *API, instead=True)(_says(200, _document))


def _redirect(target: str, status: int = 302) -> Callable[[Reply, About], None]:
    def change(reply: Reply, about: About) -> None:
        reply.status = status
        reply.body = b""
        reply.set_header("Location", target.replace("ORIGIN", about.origin).replace("ID", about.task_id))

    return change


_TARGETS = {
    "a login page": "https://login.invalid/?next=%2F", "itself": "ORIGIN/v1/again",
    "a closed port": "http://127.0.0.1:1/x",
    "a port out of range": "http://127.0.0.1:99999/x", "a negative port": "http://127.0.0.1:-1/x",
    "no URL": "http://[::/x",
    "an odd literal": "http://[v1.a]1e3+&@", "four slashes": "http:////[fe80::1%25e]/", "nothing": "", "a blank": " ",
    "a mail address": "mailto:a@b.invalid", "a file": "file:///etc/passwd", "a script": "javascript:alert(1)",
    "above ascii": "http://127.0.0.1/caf\xe9", "a control character": "http://127.0.0.1/a\tb",
    "a long one": "/" + "x" * 9000,
    "a host with a blank": "http://a b/", "user and password": "http://user:pass@127.0.0.1:1/",
    "a backslash": "\\\\host\\x",
    "an empty host": "http:///x", "a scheme only": "http:", "two points": "http://a..b/",
    "a label too long": f"http://{'a' * 70}.invalid/",
}  # fmt: skip
for _word, _target in _TARGETS.items():
    _change(f"redirect: {_word}", *ALL, instead=True)(_redirect(_target))
for _status in (300, 301, 303, 304, 305, 307, 308):
    _change(f"redirect: {_status}", *ALL, instead=True)(_redirect("http://127.0.0.1:1/x", _status))

# Where an answer to a submission has its id.


def _about_id(make: Callable[[str], Any]) -> Callable[[Reply, About], None]:
    def change(reply: Reply, about: About) -> None:
        if about.task_id:
            reply.set_document(make(about.task_id))

    return change


_several(
    "id:", "submit",
    at_the_top=_about_id(lambda one: {"id": one, "object": "generation.task", "status": "pending"}),
    at_the_top_as_task_id=_about_id(lambda one: {"task_id": one, "status": "submitted"}),
    one_level_deeper=_about_id(lambda one: {"code": 200, "data": {"data": {"task_id": one}}}),
    in_a_task=_about_id(lambda one: {"code": 200, "data": {"task": {"id": one, "status": "queued"}}}),
    in_a_result=_about_id(lambda one: {"result": {"task_id": one}}),
    in_an_output=_about_id(lambda one: {"output": {"task_id": one, "task_status": "PENDING"}, "request_id": "r-1"}),
    in_a_bare_list=_about_id(lambda one: [{"task_id": one}]),
    in_lists_of_lists=_about_id(lambda one: {"code": 200, "data": [[{"task_id": one}]]}),
    as_a_bare_text_in_a_list=_about_id(lambda one: {"code": 200, "data": [one]}),
    as_a_bare_text=_about_id(lambda one: {"code": 200, "data": one}),
    in_camel_case=_about_id(lambda one: {"code": 200, "data": [{"taskId": one}]}),
    with_blanks_around=_about_id(lambda one: {"code": 200, "data": [{"task_id": f" {one}\n"}]}),
    twice=_about_id(lambda one: {"code": 200, "data": [{"task_id": one}, {"task_id": one}]}),
    with_a_request_id_first=_about_id(lambda one: {"id": "req-1", "code": 200, "data": [{"task_id": one}]}),
    and_members_with_familiar_names=_about_id(
        lambda one: {"status": 0, "code": 200, "data": [{"task_id": one, "data": {}, "id": "inner", "status": 7}]}
    ),
    and_an_error_that_is_null=_about_id(lambda one: {"error": None, "success": True, "data": [{"task_id": one}]}),
    and_success_is_false=_about_id(lambda one: {"success": False, "data": [{"task_id": one}]}),
    and_an_error=_about_id(lambda one: {"error": {"code": 500, "message": "late"}, "data": [{"task_id": one}]}),
    only_in_a_message=_about_id(lambda one: {"code": 200, "message": f"task {one} was created", "data": None}),
    in_a_link=_about_id(lambda one: {"code": 200, "data": {"poll_url": f"/v1/tasks/{one}"}}),
    in_a_page_of_HTML=lambda reply, about: reply.page(f"accepted {about.task_id}"),
    in_lines=lambda reply, about: setattr(reply, "body",
    f'event: task\ndata: {{"task_id": "{about.task_id}"}}\n'.encode()),
)  # fmt: skip


@_change("id: in a header", "submit")
def _id_in_header(reply: Reply, about: About) -> None:
    reply.set_document({"code": 200, "message": "accepted"})
    reply.headers.append((about.dice.choice(("X-Task-Id", "Task-Id", "X-Request-Task")), about.task_id))


@_change("id: in the location", "submit")
def _id_in_location(reply: Reply, about: About) -> None:
    reply.status = 202
    reply.set_document({})
    reply.set_header("Location", f"/v1/tasks/{about.task_id}")


def _under(status: int) -> Callable[[Reply, About], None]:
    def change(reply: Reply, _: About) -> None:
        reply.status = status

    return change


# A good answer under another status: a gateway that lost its way after the service had answered.
for _status in (201, 202, 203, 206, 207, 218, 226, 299, 408, 409, 499, 500, 502, 503, 504, 520, 524):
    _change(f"good, but {_status}", "submit", "poll")(_under(_status))

# Answers to polls.


def _task(reply: Reply) -> dict[str, Any]:
    """The task document of a poll's answer."""
    document = reply.document()
    for _ in range(2):
        if isinstance(document, dict) and isinstance(document.get("data"), dict):
            document = document["data"]
    return document if isinstance(document, dict) else {}


def _alter(make: Callable[[dict[str, Any], About], Any]) -> Callable[[Reply, About], None]:
    """Changes the task document of a poll; the envelope stays, unless something else is given back."""

    def change(reply: Reply, about: About) -> None:
        task = _task(reply)
        if task:
            other = make(task, about)
            reply.set_document({"code": 200, "data": task} if other is None else other)

    return change


def _word(**words: str) -> Callable[[dict[str, Any], About], None]:
    def change(task: dict[str, Any], _: About) -> None:
        task["status"] = words.get(str(task.get("status")), task.get("status"))

    return change


_several(
    "end:", "poll",
    finished=_alter(_word(completed="finished", failed="FAILURE")),
    in_capitals=_alter(_word(completed="SUCCESS", failed="FAILED")),
    succeeded=_alter(_word(completed="Succeeded", failed="error")),
    done=_alter(_word(completed="done", failed="Rejected")),
    of_nobody=_alter(_word(completed="ripe")),
    a_number=_alter(lambda task, _: task.update(status=3)),
    none=_alter(lambda task, _: task.pop("status", None) and None),
    another_member=_alter(lambda task, _: task.update(task_status=task.pop("status", None))),
)  # fmt: skip


def _stamp(make: Callable[[float], Any]) -> Callable[[dict[str, Any], About], None]:
    def change(task: dict[str, Any], _: About) -> None:
        for name in ("created", "completed"):
            if isinstance(task.get(name), int | float):
                task[name] = make(task[name])
        for image in _images(task):
            if isinstance(image.get("expires_at"), int | float):
                image["expires_at"] = make(image["expires_at"])

    return change


def _images(task: dict[str, Any]) -> list[dict[str, Any]]:
    result = task.get("result")
    found = result.get("images") if isinstance(result, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


_several(
    "time:", "poll",
    milliseconds=_alter(_stamp(lambda at: at * 1000)),
    microseconds=_alter(_stamp(lambda at: int(at * 1_000_000))),
    nanoseconds=_alter(_stamp(lambda at: int(at) * 10**9)),
    a_text=_alter(_stamp(str)),
    a_date=_alter(_stamp(lambda _: "2099-12-31T23:59:59Z")),
    zero=_alter(_stamp(lambda _: 0)),
    negative=_alter(_stamp(lambda at: -at)),
    absurd=_alter(_stamp(lambda _: 10**300)),
    null=_alter(_stamp(lambda _: None)),
    a_list=_alter(_stamp(lambda at: [at])),
)  # fmt: skip


def _links(make: Callable[[str, About], Any]) -> Callable[[dict[str, Any], About], None]:
    def change(task: dict[str, Any], about: About) -> None:
        for image in _images(task):
            urls = image.get("url")
            image["url"] = [make(url, about) for url in urls] if isinstance(urls, list) else make(str(urls), about)

    return change


_several(
    "link:", "poll",
    blanks_around=_alter(_links(lambda url, _: f"  {url}\n")),
    a_tab_inside=_alter(_links(lambda url, _: url.replace("/results", "/\tresults"))),
    an_upper_case_scheme=_alter(_links(lambda url, _: url.replace("http:", "HTTP:"))),
    without_a_scheme=_alter(_links(lambda url, _: url.removeprefix("http:"))),
    a_path_only=_alter(_links(lambda url, about: url.removeprefix(about.origin))),
    a_fragment=_alter(_links(lambda url, _: f"{url}#top")),
    an_object=_alter(_links(lambda url, _: {"url": url})),
    null=_alter(_links(lambda *_: None)),
    empty=_alter(_links(lambda *_: "")),
    a_port_out_of_range=_alter(_links(lambda *_: "http://127.0.0.1:99999/a.jpg")),
    an_odd_literal=_alter(_links(lambda *_: "http://[v1.a]1e3+&@")),
    four_slashes=_alter(_links(lambda *_: "http:////..fe80::1%25e")),
    a_file=_alter(_links(lambda *_: "file:///etc/hostname")),
    private=_alter(_links(lambda *_: "http://169.254.169.254/latest/meta-data")),
    a_number=_alter(_links(lambda *_: 7)),
    above_ascii=_alter(_links(lambda *_: "http://127.0.0.1/b\u00fccher \u202e.jpg")),
    a_host_too_long=_alter(_links(lambda *_: f"http://{'a' * 300}.invalid/a.jpg")),
)  # fmt: skip


def _as(member: str) -> Callable[[dict[str, Any], About], None]:
    def change(task: dict[str, Any], _: About) -> None:
        images = _images(task)
        if images:
            urls = [url for image in images for url in image["url"]]
            task["result"] = {"image_url": urls[0]} if member == "image_url" and len(urls) == 1 else {member: urls}

    return change


_several(
    "result:", "poll",
    bare_links=_alter(_as("images")),
    under_another_name=_alter(_as("urls")),
    one_link=_alter(_as("image_url")),
    with_a_thumbnail=_alter(lambda task, _: task.update(thumbnail="https://cdn.invalid/t.jpg")),
    null=_alter(lambda task, _: task.update(result=None)),
    a_text=_alter(lambda task, _: task.update(result="[]")),
    a_list=_alter(lambda task, _: task.update(result=_images(task))),
    no_images=_alter(lambda task, _: task.update(result={"images": []})),
    images_that_are_null=_alter(lambda task, _: task.update(result={"images": [None]})),
    an_answer_of_the_upstream=_alter(lambda task, _: task.update(data={"id": "up-1", "status": "queued"})),
    an_empty_upstream=_alter(lambda task, _: task.update(data={})),
    without_an_envelope=_alter(lambda task, _: task),
    one_level_deeper=_alter(lambda task, _: {"code": 200, "data": {"data": task}}),
    in_a_list=_alter(lambda task, _: {"code": 200, "data": [task]}),
    in_a_bare_list=_alter(lambda task, _: [task]),
    without_an_id=_alter(lambda task, _: task.pop("id", None) and None),
    with_the_id_elsewhere=_alter(lambda task, _: task.update(task_id=task.pop("id", None))),
    with_an_error_beside_it=_alter(lambda task, _: {"code": 200, "data": task, "error": {"message": "warning"}}),
    with_progress_as_text=_alter(lambda task, _: task.update(progress="100%")),
    with_no_cost=_alter(lambda task, _: task.update(cost=None, credits_cost=None)),
)  # fmt: skip


@_change("result: one image less", "poll")
def _one_less(reply: Reply, _: About) -> None:
    task = _task(reply)
    if len(images := _images(task)) > 1:
        task["result"]["images"] = images[1:]
        reply.set_document({"code": 200, "data": task})


@_change("result: of another task", "poll")
def _other_task(reply: Reply, about: About) -> None:
    if about.other_id:
        reply.body = reply.body.replace(about.task_id.encode(), about.other_id.encode())


@_change("id: of another task", "submit")
def _same_id(reply: Reply, about: About) -> None:
    if about.other_id:
        reply.body = reply.body.replace(about.task_id.encode(), about.other_id.encode())


for _status in (400, 404, 410, 422, 500):
    _change(f"unknown: {_status}", "poll", instead=True)(
        _says(_status, {"error": {"code": _status, "message": "task not exist", "type": "invalid_request_error"}})
    )
    _change(f"unknown: {_status}, in another form", "poll", instead=True)(
        _says(_status, {"code": "task_not_exist", "message": "task_not_exist", "data": None})
    )

# Balance and uploads.

for _word, _document in {
    "as texts": {"success": True, "remain_balance": "99.5", "used_balance": "0.5"}, "null": {"remain_balance": None},
    "not a number": {"remain_balance": float("nan")}, "absurd": {"remain_balance": 10**400},
    "a list": {"remain_balance": [5]},
    "in data": {"success": True, "data": {"remain_balance": 12.5, "used_balance": 1}},
    "unlimited": {"unlimited_quota": True, "remain_balance": 0},
    "minus one": {"remain_balance": -1}, "true": {"remain_balance": True}, "not a success": {"success": False,
    "message": "busy", "remain_balance": 0},
}.items():  # fmt: skip
    _change(f"balance: {_word}", "balance", instead=True)(_says(200, _document))


def _upload(make: Callable[[str], Any]) -> Callable[[Reply, About], None]:
    def change(reply: Reply, _: About) -> None:
        document = reply.document()
        if isinstance(document, dict) and isinstance(document.get("url"), str):
            reply.set_document(make(document["url"]))

    return change


_several(
    "upload:", "upload",
    in_data=_upload(lambda url: {"code": 200, "data": {"url": url}}), in_a_list=_upload(lambda url: [{"url": url}]),
    blanks=_upload(lambda url: {"url": f" {url} "}), no_url=_upload(lambda _: {"id": "file-1"}),
    a_port_out_of_range=_upload(lambda _: {"url": "http://127.0.0.1:99999/a"}),
    a_path=_upload(lambda _: {"url": "/a.png"}),
    a_list_of_urls=_upload(lambda url: {"url": [url]}), null=_upload(lambda _: {"url": None}),
    an_odd_literal=_upload(lambda _: {"url": "http://[v1.a]1e3+&@"}), an_error_too=_upload(lambda url: {"url": url,
    "error": "x"}),
)  # fmt: skip

# Pictures.


def _drawn(form: str, size: tuple[int, int] | None = None) -> Callable[[Reply, About], None]:
    """The picture in another form; with `size`, another picture."""

    def change(reply: Reply, _: About) -> None:
        if reply.status not in {200, 206}:
            return
        data = io.BytesIO()
        with Image.open(io.BytesIO(reply.body)) as image:
            drawn = image.convert("RGB") if size is None else Image.new("RGB", size, "white")
            drawn.save(data, form)
        reply.body = data.getvalue()
        reply.set_header("Content-Type", f"image/{form.lower()}")

    return change


_several(
    "picture:", "image",
    a_placeholder=_drawn("PNG", (1, 1)), a_placeholder_gif=_drawn("GIF", (1, 1)),
    a_white_square=_drawn("JPEG", (300, 300)),
    a_banner=_drawn("PNG", (1400, 300)), a_tower=_drawn("JPEG", (300, 1400)),
)  # fmt: skip
_several(
    "picture:", "image",
    webp=_drawn("WEBP"), png=_drawn("PNG"), bmp=_drawn("BMP"), tiff=_drawn("TIFF"),
    truncated=_set_body(lambda body: body[: len(body) // 2]), truncated_a_little=_set_body(lambda body: body[:-3]),
    empty=_set_body(lambda _: b""), zeros=_set_body(lambda body: b"\0" * len(body)),
    with_junk_before_it=_set_body(lambda body: b"\r\n" + body),
    with_junk_after_it=_set_body(lambda body: body + b"\0" * 64),
    type_of_a_page=lambda reply, _: reply.set_header("Content-Type", "text/html"),
    type_of_bytes=lambda reply, _: reply.set_header("Content-Type", "application/octet-stream"),
    as_a_download=_header("Content-Disposition", 'attachment; filename="../../etc/x.jpg"'),
    a_part=lambda reply, _: (setattr(reply, "status", 206), reply.headers.append(("Content-Range",
    f"bytes 0-9/{len(reply.body)}"))),
    another_range=lambda reply, _: (setattr(reply, "status", 206), reply.headers.append(("Content-Range",
    "bytes 5-9/10"))),
    a_page=lambda reply, _: reply.page("Please log in"),
)  # fmt: skip


@_change("picture: of another task", "image")
def _same_picture(reply: Reply, about: About) -> None:
    if reply.status == HTTPStatus.OK:
        _LATEST.setdefault(about.origin, reply.body)
        reply.body = _LATEST[about.origin]


_LATEST: dict[str, bytes] = {}
"""The first picture of each gateway, for those that give it to all."""


def altered(reply: Reply, changes: list[str], about: About) -> None:
    """Makes the changes, in this order."""
    for name in changes:
        CHANGES[name].make(reply, about)


def of(endpoint: str) -> list[str]:
    """The names of the changes that make sense there."""
    return [name for name, change in CHANGES.items() if endpoint in change.endpoints]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Which answers are changed, how, and how often."""

    endpoint: str
    changes: tuple[str, ...]
    often: str
    """once, or always."""
    whom: str
    """A pattern for the prompts of the tasks that are struck."""
    late: bool = False
    """Whether a gateway that answers by itself does so after the service was asked."""

    @property
    def name(self) -> str:
        """The recipe in words."""
        late = " after the service" if self.late else ""
        return f"{self.endpoint}: {' + '.join(self.changes)}{late}, {self.often}, {self.whom or 'all'}"


# A status by which the service says that it did nothing: a gateway that says so after the bill cannot be told apart.
_NOT_EXECUTED = {
    400,
    401,
    402,
    403,
    404,
    405,
    406,
    407,
    410,
    413,
    415,
    421,
    422,
    423,
    425,
    426,
    429,
    431,
    451,
    501,
    511,
}


def recipes() -> Iterator[Recipe]:
    """Every change alone, once and always, then all of them in seeded mixtures without end."""
    for endpoint in ALL:
        for name in of(endpoint):
            yield Recipe(endpoint, (name,), "once", "")
            yield Recipe(endpoint, (name,), "always", "fox|swans")
            if endpoint == "submit" and CHANGES[name].instead and not _refuses(name):
                yield Recipe(endpoint, (name,), "always", "fox|swans", late=True)
    seed = 0
    while True:
        yield mixture(seed)
        seed += 1


def _refuses(name: str) -> bool:
    """Whether the answer says that nothing was executed, so that no gateway may give it after the bill."""
    kind, _, rest = name.partition(": ")
    digits = rest.rpartition(" ")[2]
    if kind == "redirect":
        # See Other may be the answer to what was executed; the usual redirects are of addresses.
        return rest not in {"300", "303", "304", "305"}
    return kind == "quota" or (digits.isdigit() and int(digits) in _NOT_EXECUTED)


def mixture(seed: int) -> Recipe:
    """Two or three changes of an endpoint."""
    dice = random.Random(f"gateway {seed}")
    endpoint = dice.choices(ALL, (6, 5, 1, 2, 5))[0]
    known = of(endpoint)
    changes = dice.sample(known, dice.choice((2, 2, 3)))
    # What the gateway answers by itself comes first: the others change it further.
    changes.sort(key=lambda name: not CHANGES[name].instead)
    instead = [name for name in changes if CHANGES[name].instead]
    late = endpoint == "submit" and bool(instead) and not any(map(_refuses, instead)) and dice.random() < 0.5
    return Recipe(endpoint, tuple(changes), dice.choice(("once", "always")), dice.choice(("", "fox|swans")), late)


@dataclass(slots=True)
class Struck:
    """What a gateway notes of an answer that it changed."""

    endpoint: str
    task_id: str
    readable: bool
    """Whether the id of the task was in the bytes that were sent."""
    changes: list[str] = field(default_factory=list)
