"""Builds the documentation into build/site: `pip install -e '.[docs]' && python docs/build_site.py`.

Zensical does it, the successor of Material for MkDocs, whose time of fixes ended in November 2026: it takes a second,
has search, light and dark without scripts or fonts of other hosts, and is strict about links.
"""

import html.parser
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path

from reference_parts import assembled

DOCS = Path(__file__).parent
ROOT = DOCS.parent
WORK = ROOT / "build" / "docs"
SITE = ROOT / "build" / "site"
_ELSEWHERE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages of the project that have a page in the site."""
_LINK = re.compile(
    r"(?<=\]\()(?P<plain>[^)\s]+)(?=\))|(?<=src=\")(?P<src>[^\"]+)(?=\")|(?<=srcset=\")(?P<set>[^\"]+)(?=\")"
)
_FENCE = re.compile(r"^( *)(```+).*?^\1\2$", re.MULTILINE | re.DOTALL)


class BuildError(Exception):
    """The site cannot be built; the message says what to correct."""


@dataclass(frozen=True)
class Entry:
    """A line of the index: a page, its title and what it is about."""

    section: str
    title: str
    page: str
    about: str


def entries() -> list[Entry]:
    """Return the pages in the order of the site, as `index.md` links to them."""
    found = []
    section = ""
    for line in (DOCS / "index.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif match := re.match(r"- \[(.+?)\]\(([\w/-]+\.md)\)(?:: (.+))?", line):
            found.append(Entry(section, match[1], match[2], match[3] or ""))
    pages = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
    listed = ["index.md", *(entry.page for entry in found)]
    if sorted(listed) != pages:
        raise BuildError(f"docs/index.md should link once to each page: {sorted(set(listed) ^ set(pages)) or listed}")
    return found


def write_pages() -> None:
    """Write the pages to the folder that Zensical reads: assembled, and with links that stay inside of the site."""
    for path in DOCS.rglob("*"):
        target = WORK / "pages" / path.relative_to(DOCS)
        if path.suffix == ".md":
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_linked(assembled(path.read_text(encoding="utf-8")), path), encoding="utf-8")
        elif "assets" in path.relative_to(DOCS).parts and path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def _linked(text: str, page: Path) -> str:
    """Return the text with links to other files of the project made to copies of these in the site."""

    def link(match: re.Match[str]) -> str:
        where, mark, anchor = match[0].partition("#")
        if not where or ":" in where:
            return match[0]
        # What comes from CONTRIBUTING.md or CHANGELOG.md is relative to the root.
        folders = [page.parent, ROOT]
        file = next((path for folder in folders if (path := Path(os.path.normpath(folder / where))).is_file()), None)
        if file is None:
            raise BuildError(f"{page.relative_to(ROOT)} links to {where}, which does not exist")
        if file.is_relative_to(DOCS):
            inside = file.relative_to(DOCS)
        elif file.relative_to(ROOT).as_posix() in _ELSEWHERE:
            inside = Path(_ELSEWHERE[file.relative_to(ROOT).as_posix()])
        else:
            inside = Path("files") / file.relative_to(ROOT)
            (WORK / "pages" / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, WORK / "pages" / inside)
        back = Path(os.path.relpath(DOCS / inside, page.parent)).as_posix()
        return f"{back}{mark}{anchor}"

    parts = []
    end = 0
    for fence in _FENCE.finditer(text):
        parts += [_LINK.sub(link, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(link, text[end:])])


def write_config(pages: list[Entry]) -> None:
    """Write the configuration of Zensical with the navigation."""
    sections: dict[str, list[Entry]] = {}
    for entry in pages:
        sections.setdefault(entry.section, []).append(entry)
    lines = ['{"Home" = "index.md"}']
    for section, below in sections.items():
        items = ", ".join(f"{{{json.dumps(one.title)} = {json.dumps(one.page)}}}" for one in below)
        lines.append(f"{{{json.dumps(section)} = [{items}]}}")
    config = (DOCS / "zensical.toml").read_text(encoding="utf-8")
    (WORK / "zensical.toml").write_text(config.replace("nav = []", f"nav = [{', '.join(lines)}]"), encoding="utf-8")


def write_for_models(pages: list[Entry]) -> None:
    """Write llms.txt, and the Markdown of each page beside its HTML."""
    lines = [(DOCS / "index.md").read_text(encoding="utf-8").partition("\n## ")[0].partition("\n![")[0].strip()]
    for number, entry in enumerate(pages):
        if number == 0 or entry.section != pages[number - 1].section:
            lines.append(f"\n## {entry.section}\n")
        lines.append(f"- [{entry.title}]({entry.page}): {entry.about}")
        shutil.copy(WORK / "pages" / entry.page, SITE / entry.page)
    (SITE / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


@dataclass
class _Page(html.parser.HTMLParser):
    """The links and the anchors of a page."""

    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name in {"href", "src", "srcset"} and tag != "use":
                self.links.append(value)
            elif value and name in {"id", "name"}:
                self.anchors.add(value)


def check_site() -> tuple[int, list[str]]:
    """Return how many links of the site were checked, and those that lead nowhere or load from another host."""
    pages = {}
    for path in SITE.rglob("*.html"):
        pages[path] = _Page()
        pages[path].feed(path.read_text(encoding="utf-8"))
    checked = 0
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links are absolute
            continue
        for link in page.links:
            where = urllib.parse.urlsplit(link)
            if where.scheme or where.netloc:
                continue
            checked += 1
            target = Path(os.path.normpath(path.parent / urllib.parse.unquote(where.path))) if where.path else path
            target = target / "index.html" if target.is_dir() else target
            anchor = urllib.parse.unquote(where.fragment)
            anchors = pages[target].anchors if target in pages else None
            if not target.is_file() or (anchor and anchors is not None and anchor not in anchors):
                broken.append(f"{path.relative_to(SITE)}: {link}")
    return checked, broken


def main() -> None:
    """Build the site and check it."""
    shutil.rmtree(WORK, ignore_errors=True)
    shutil.rmtree(SITE, ignore_errors=True)
    pages = entries()
    write_pages()
    write_config(pages)
    subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "-f", str(WORK / "zensical.toml")],
        check=True,
    )
    shutil.move(WORK / "site", SITE)
    write_for_models(pages)
    checked, broken = check_site()
    if broken:
        raise BuildError("links that lead nowhere:\n" + "\n".join(broken))
    print(f"{len(pages) + 1} pages, {checked:,} links checked: {SITE.relative_to(ROOT)}/index.html")


if __name__ == "__main__":
    try:
        main()
    except BuildError as error:
        sys.exit(f"docs/build_site.py: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
