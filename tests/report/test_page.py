"""The gallery in a real browser: what a person would click and type."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest

from seedream_batch.report.page import script
from seedream_batch.selection.picks import parse_choice

pytestmark = pytest.mark.thorough

LOADED = "[...document.querySelectorAll('.tile img')].every((one) => one.complete && one.naturalWidth > 0)"


def until(page, expression):
    """Waits for it from out here: to wait in the page would need what its policy forbids."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(expression)


def names(page, selector):
    return [text.strip() for text in page.locator(selector).all_inner_texts()]


def tile(page, label):
    return page.locator(f"button.tile[aria-label^='{label}']")


def focused(page):
    return page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.id")


def box(page, value):
    return page.locator("#filters label").filter(has_text=re.compile(rf"^{value}\d+$")).locator("input")


def shown(page):
    return page.locator("#shown").inner_text()


# The matrix


def test_the_matrix_is_a_grid_with_every_cell(page):
    assert names(page, ".head [aria-colindex]") == ["1:1", "4:3", "3:4", "16:9", "9:16", "3:2", "2:3", "21:9", "9:21"]
    assert names(page, ".row-name") == ["panda", "fox", "panda", "fox"]
    assert [name.split()[1] for name in names(page, ".group-name")] == ["2K", "4K"]
    assert page.locator(".tile").count() == 36
    assert page.locator(".tile img").count() == 33
    until(page, LOADED)
    assert "36 cells" in page.locator("#summary").inner_text()


def test_pictures_keep_their_ratio(page):
    box = tile(page, "panda, 21:9, 2K").locator("img").bounding_box()
    assert box["width"] / box["height"] == pytest.approx(3024 / 1296, rel=0.04)
    box = tile(page, "panda, 9:21, 2K").locator("img").bounding_box()
    assert box["width"] / box["height"] == pytest.approx(1296 / 3024, rel=0.04)


def test_what_is_not_there_is_told_with_its_reason(page):
    holes = page.locator(".tile .hole")
    assert sorted(text.split("\n")[0] for text in holes.all_inner_texts()) == ["? uncertain", "✕ failed", "✕ failed"]
    assert page.locator(".tile[aria-label*='uncertain: the connection was']").count() == 1
    assert page.locator(".tile[aria-label*='failed: image generation failed']").count() == 2


def test_rows_columns_and_groups_are_chosen(page):
    page.select_option("#rows", label="size")
    assert names(page, ".head [aria-colindex]") == ["panda", "fox"], "the axis it pushed out takes its place"
    assert names(page, ".row-name")[0] == "1:1"
    page.select_option("#groups", label="none")
    assert page.locator(".group-name").count() == 0
    assert page.locator(".caption").first.inner_text() == "2K"
    page.select_option("#columns", label="resolution")
    assert names(page, ".head [aria-colindex]") == ["2K", "4K"]
    page.select_option("#columns", label="none")
    page.select_option("#rows", label="none")
    assert page.locator(".head").is_hidden()
    assert page.locator(".tile").count() == 36


def test_samples_are_an_axis(look, studio):
    job = 'version: 1\nname: two\nmatrix: {subject: [panda, fox]}\nrepeat: 3\nrequest: {prompt: "{{ subject }}"}\n'
    made = studio(job)
    told = made.report()
    assert (told["cells"], told["tasks"], told["images"]) == (2, 6, 6)
    page = look(told["index"])
    assert names(page, ".head [aria-colindex]") == ["1", "2", "3"]
    page.select_option("#rows", label="sample")
    assert names(page, ".row-name") == ["1", "2", "3"]


# The keyboard


def test_arrows_move_and_the_focus_is_seen(page):
    tile(page, "panda, 1:1, 2K").focus()
    page.keyboard.press("ArrowRight")
    assert focused(page).startswith("panda, 4:3, 2K")
    page.keyboard.press("ArrowDown")
    assert focused(page).startswith("fox, 4:3, 2K")
    page.keyboard.press("ArrowDown")
    assert focused(page).startswith("panda, 4:3, 4K"), "over the name of the group"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    assert focused(page).startswith("fox, 1:1, 2K")
    page.keyboard.press("End")
    assert focused(page).startswith("fox, 9:21, 2K")
    page.keyboard.press("Home")
    assert focused(page).startswith("fox, 1:1, 2K")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    assert page.locator(".tile[tabindex='0']").count() == 1, "one stop of the tabulator for all of the grid"


def test_enter_opens_arrows_go_on_and_escape_closes(page):
    tile(page, "panda, 1:1, 2K").focus()
    page.keyboard.press("Enter")
    assert page.locator("#detail-title").inner_text() == "panda/1-1_2K.jpg"
    page.keyboard.press("ArrowRight")
    assert page.locator("#detail-title").inner_text() == "panda/4-3_2K.jpg"
    page.keyboard.press("k")
    assert page.locator("#detail [data-act=keep]").get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    assert page.locator("#detail").is_hidden()
    # The focus is where one has been looking, as soon as the window has told that it is closed.
    until(page, "(document.activeElement.getAttribute('aria-label') || '').startsWith('panda, 4:3, 2K')")


def test_help_and_search_have_keys(page):
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    assert focused(page) == "search"
    page.keyboard.type("k")
    assert page.locator(".flag").count() == 0, "what is typed marks nothing"


# A closer look


def test_the_detail_view_tells_everything(page, postcards):
    tile(page, "panda, 16:9, 2K").click()
    facts = page.locator("#detail-facts")
    facts.locator("pre").first.wait_for()
    text = facts.inner_text()
    file = postcards.folder / "out/postcards/panda/16-9_2K.jpg"
    assert "a panda playing in a bamboo forest, watercolour" in text
    assert hashlib.sha256(file.read_bytes()).hexdigest() in text
    assert "task_" in text
    assert "0.035 USD" in text
    assert "Submitted" in text
    assert "panda/16-9_2K.jpg" in text
    body = json.loads(facts.locator("pre").first.inner_text())
    assert body["prompt"] == "a panda playing in a bamboo forest, watercolour"
    assert body["size"] == "16:9"
    until(page, "document.querySelector('#detail-stage img').naturalWidth === 2560")
    picture = page.locator("#detail-stage img")
    assert picture.get_attribute("src") == "../postcards/panda/16-9_2K.jpg"
    assert picture.get_attribute("alt") == body["prompt"]


def test_what_failed_has_a_detail_view_as_well(page):
    page.locator(".tile[aria-label*='failed']").first.click()
    facts = page.locator("#detail-facts")
    facts.locator("pre").first.wait_for()
    assert "OutputImageSensitiveContentDetected" in facts.inner_text()
    assert page.locator("#detail [data-act=keep]").is_disabled()


def test_copy_buttons_copy(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tile(page, "fox, 4:3, 4K").click()
    button = page.get_by_role("button", name="Copy prompt")
    button.click()
    until(page, "[...document.querySelectorAll('.copy')].some((one) => one.textContent === 'Copied')")
    assert page.evaluate("navigator.clipboard.readText()") == "a fox asleep in the snow, watercolour"


def test_copying_works_without_the_new_clipboard(page):
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    tile(page, "fox, 4:3, 4K").click()
    page.get_by_role("button", name="Copy prompt").click()
    until(page, "[...document.querySelectorAll('.copy')].some((one) => one.textContent === 'Copied')")


# Search and filter


@pytest.mark.parametrize(
    ("text", "count"),
    [("fox", 18), ("FOX snow", 18), ("panda/3-4", 2), ("21:9 fox", 2), ("unicorn", 0), ("watercolour", 36)],
)
def test_search(page, text, count):
    page.fill("#search", text)
    assert shown(page) == (f"{count} of 36" if count < 36 else "All 36")
    assert page.locator(".tile").count() == count
    if not count:
        page.click("#show-all")
        assert page.locator(".tile").count() == 36


def test_search_for_a_task_id(page):
    tile(page, "fox, 2:3, 4K").click()
    code = page.locator("#detail-facts code").first
    code.wait_for()
    task_id = code.inner_text()
    page.keyboard.press("Escape")
    page.fill("#search", task_id)
    assert page.locator(".tile").count() == 1
    assert tile(page, "fox, 2:3, 4K").count() == 1


def test_filter_by_state_choice_and_value(page):
    tile(page, "panda, 1:1, 4K").focus()
    page.keyboard.press("r")
    page.click("#open-filters")
    box(page, "failed").check()
    assert page.locator(".tile").count() == 2
    box(page, "uncertain").check()
    assert page.locator(".tile").count() == 3
    assert page.locator("#open-filters").inner_text() == "Filter (2)"
    page.get_by_role("button", name="Show all").click()
    box(page, "16:9").check()
    box(page, "fox").check()
    assert page.locator(".tile").count() == 2
    page.get_by_role("button", name="Show all").click()
    box(page, "rejected").check()
    assert page.locator(".tile").count() == 1
    assert page.locator("#filters fieldset").count() == 5


# The choice


def test_marks_are_shown_in_words_and_remembered(page):
    tile(page, "panda, 1:1, 2K").focus()
    page.keyboard.press("k")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("r")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("k")
    page.keyboard.press("u")
    page.keyboard.press("c")
    assert names(page, ".flag") == ["✓ kept", "✕ rejected", "⇄ compare"]
    assert page.locator("#said").inner_text() == "panda/3-4_2K.jpg: marked for comparison"
    assert page.locator("#chosen-text").inner_text() == "1 kept, 1 rejected, 1 to compare"
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert names(page, ".flag") == ["✓ kept", "✕ rejected"]


def test_what_is_not_there_cannot_be_chosen(page):
    page.locator(".tile[aria-label*='failed']").first.focus()
    page.keyboard.press("k")
    assert page.locator(".flag").count() == 0
    assert "cannot be marked" in page.locator("#said").inner_text()


def test_the_choice_is_exported_and_read_back(page, postcards):
    tile(page, "panda, 4:3, 4K").focus()
    page.keyboard.press("k")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("k")
    tile(page, "fox, 21:9, 2K").focus()
    page.keyboard.press("r")
    page.click("#open-export")
    assert page.locator("#export-text").inner_text() == "2 kept, 1 image rejected."
    with page.expect_download() as waiting:
        page.click("#export [data-act=download]")
    assert waiting.value.suggested_filename == "postcards-choice.json"
    text = Path(waiting.value.path()).read_text(encoding="utf-8")
    assert text == page.locator("#export-json").input_value()
    choice = parse_choice(text, "choice")
    assert choice.job == "postcards"
    assert (len(choice.keep), len(choice.reject)) == (2, 1)
    (rejected,) = choice.reject
    file = postcards.folder / "out/postcards/fox/21-9_2K.jpg"
    assert rejected.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    page.click("#export [data-act=forget]")
    assert page.locator(".flag").count() == 0


def test_compare_zooms_all_together(page):
    for label in ("panda, 1:1, 2K", "panda, 1:1, 4K"):
        tile(page, label).focus()
        page.keyboard.press("c")
    page.click("#open-compare")
    figures = page.locator("#compare figure")
    assert figures.count() == 2
    page.locator("#compare [data-act=in]").click()
    zoomed = page.evaluate("[...document.querySelectorAll('#compare img')].map((one) => one.style.transform)")
    assert zoomed[0] == zoomed[1]
    assert "scale(1.5)" in zoomed[0]
    page.locator("#compare .stage").first.hover()
    page.mouse.wheel(0, -300)
    until(page, "!document.querySelectorAll('#compare img')[1].style.transform.includes('scale(1.5)')")
    page.keyboard.press("0")
    assert "scale(1)" in page.locator("#compare img").first.get_attribute("style")
    page.get_by_role("button", name="Keep panda/1-1_4K.jpg").click()
    page.keyboard.press("Escape")
    assert page.locator(".flag.is-keep").count() == 1


def test_marks_work_where_the_browser_keeps_nothing(look, postcards):
    page = look(postcards.told["index"])
    page.context.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('no'); } })")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    tile(page, "panda, 1:1, 2K").focus()
    page.keyboard.press("k")
    page.click("#theme")
    page.click("#open-export")
    assert len(parse_choice(page.locator("#export-json").input_value(), "choice").keep) == 1


def test_a_page_that_was_written_anew_says_so(look, postcards, tmp_path):
    folder = tmp_path / "postcards-report"
    shutil.copytree(Path(postcards.told["index"]).parent, folder)
    page = look(folder / "index.html", complains=True)
    for path in folder.glob("data/details-*"):
        path.unlink()
    tile(page, "panda, 1:1, 2K").click()
    page.locator("#detail-facts p").wait_for()
    assert "the gallery was updated. Reload the page." in page.locator("#detail-facts").inner_text()


# How it looks


def brightness(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")


@pytest.mark.parametrize(("scheme", "light"), [("light", True), ("dark", False)])
def test_light_and_dark_follow_the_system_and_the_button(look, postcards, scheme, light):
    page = look(postcards.told["index"], color_scheme=scheme)
    assert (brightness(page) > 128) == light
    page.click("#theme")
    assert (brightness(page) > 128) != light
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert (brightness(page) > 128) != light


CONTRAST = """
(() => {
  const context = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (parts) => {
    const [r, g, b] = parts.map((part) => (part /= 255) <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const below = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const low = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.checkVisibility() || node.closest('[disabled], .unseen, .skip')) continue;
    const [one, other] = [luminance(rgb(getComputedStyle(node).color)), luminance(below(node))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) low.push(`${node.className} ${node.textContent.slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return low;
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out(look, postcards, scheme):
    page = look(postcards.told["index"], color_scheme=scheme, reduced_motion="reduce")
    tile(page, "panda, 1:1, 2K").focus()
    for key in ("k", "c", "ArrowRight", "r"):
        page.keyboard.press(key)
    page.click("#open-filters")
    assert page.evaluate(CONTRAST) == []
    page.click("#open-chart")
    assert page.evaluate(CONTRAST) == []
    page.keyboard.press("Escape")
    tile(page, "panda, 1:1, 2K").click()
    page.locator("#detail-facts pre").first.wait_for()
    assert page.evaluate(CONTRAST) == []


def test_everything_has_a_name(page):
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.title() == "postcards: gallery"
    nameless = (
        "[...document.querySelectorAll('button, input, select, textarea, dialog, [role=grid], [role=img]')]"
        ".filter((one) => !(one.getAttribute('aria-label') || one.getAttribute('aria-labelledby') ||"
        " (one.labels && one.labels.length) || one.textContent.trim())).map((one) => one.outerHTML)"
    )
    page.click("#open-chart")
    assert page.evaluate(nameless) == []
    alts = page.evaluate("[...new Set([...document.querySelectorAll('.tile img')].map((one) => one.alt))]")
    assert sorted(alts) == ["a fox asleep in the snow, watercolour", "a panda playing in a bamboo forest, watercolour"]


def test_the_tabulator_goes_from_above_to_below(page):
    order = []
    for _ in range(12):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert order[:10] == [
        "skip", "open-chart", "theme", "open-help", "search", "rows", "columns", "groups", "size", "open-filters",
    ]  # fmt: skip
    assert "tile current" in order


def test_a_phone_is_wide_enough(look, postcards):
    page = look(postcards.told["index"], width=390, height=844, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("document.querySelector('#grid').scrollWidth") == 390
    assert names(page, ".head [aria-colindex]") == ["panda", "fox"]
    tile(page, "fox, 4:3, 2K").tap()
    page.locator("#detail-facts pre").first.wait_for()
    box = page.locator("#detail").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    assert page.get_by_role("button", name="Close").is_visible()


def test_the_chart_tells_the_run_in_words_as_well(page):
    page.click("#open-chart")
    chart = page.locator("#chart svg[role=img]").first
    assert "36 submitted, 35 ended, 33 stored, 1.155 USD" in chart.get_attribute("aria-label")
    last = page.locator("#chart tbody tr").last.locator("td").all_inner_texts()
    assert last[1:] == ["36", "35", "33", "1.155"]


# What must not happen

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"> & <b>bold</b>"


def test_what_a_job_says_is_never_markup(look, studio):
    job = {
        "version": 1,
        "name": "hostile",
        "matrix": {"subject": [{"id": HOSTILE, "text": f"{HOSTILE}\u202e backwards"}, "<i>two</i>"]},
        "request": {"prompt": "{{ subject.text if subject is mapping else subject }}"},
        "output": {"path": "{{ sample }}/%23 {{ 'a' if subject is mapping else 'b' }}?#&'"},
    }
    made = studio(json.dumps(job))
    assert made.ran[0] == 0, made.ran
    told = made.report()
    page = look(told["index"])
    assert page.locator(".tile").count() == 2
    until(page, LOADED)
    page.locator(".tile").first.click()
    page.locator("#detail-facts pre").first.wait_for()
    until(page, "document.querySelector('#detail-stage img').naturalWidth > 0")
    assert "onerror" in page.locator("#detail-facts .prompt").inner_text()
    assert page.title() == "hostile: gallery"
    assert page.locator("img[src=x], .facts b, .tile i").count() == 0
    shown = page.locator("body").inner_text()
    assert "\u202e" not in shown


def test_the_policy_holds(look, postcards):
    page = look(postcards.told["index"], complains=True)
    stopped = """
        new Promise((done) => {
          const told = [];
          document.addEventListener('securitypolicyviolation', (event) => told.push(event.effectiveDirective));
          const script = document.createElement('script');
          script.textContent = 'document.title = "owned"';
          document.body.append(script);
          const frame = document.createElement('iframe');
          frame.src = 'data:text/html,x';
          document.body.append(frame);
          fetch('data/index.js').catch(() => setTimeout(() => done(told), 300));
        })
    """
    told = page.evaluate(stopped)
    assert {"script-src-elem", "frame-src", "connect-src"} <= set(told)
    assert page.title() == "postcards: gallery"


def test_ten_thousand_images_are_a_handful_of_elements(look, postcards, tmp_path):
    folder = tmp_path / "postcards-report"
    shutil.copytree(Path(postcards.told["index"]).parent, folder)
    tasks = [
        [f"{number:064x}", 1, [number // 100, number % 100], 0, "4:3", f"task_{number}", [
            [1, "stored", f"{number}.jpg", "", f"{number:064x}", 2304, 1728]]]
        for number in range(10_000)
    ]  # fmt: skip
    (folder / "data" / "many.js").write_bytes(script("cells", 0, {"prompts": ["a fox"], "tasks": tasks}))
    index = {
        "job": "many", "id": "0", "version": "0", "at": 1.0, "images": "../", "running": False, "tasks": 10_000,
        "axes": [{"name": name, "values": [f"{name} {one}" for one in range(100)]} for name in ("row", "column")],
        "cells": 10_000, "states": {"stored": 10_000}, "spent": 350.0, "held": 0.0, "timeline": [],
        "grid": ["many.js"], "details": [], "details_each": 250,
    }  # fmt: skip
    (folder / "data" / "index.js").write_bytes(script("begin", index))
    # None of the pictures is there.
    page = look(folder / "index.html", complains=True)
    page.select_option("#columns", label="column")
    page.select_option("#rows", label="row")
    assert 0 < page.locator(".tile").count() < 400
    page.locator("#grid").evaluate("(grid) => grid.scrollTo(grid.scrollWidth, grid.scrollHeight)")
    tile(page, "row 99, column 99").wait_for()
    assert page.locator(".tile").count() < 400
    page.fill("#search", "task_4242")
    assert shown(page) == "1 of 10,000"
    page.fill("#search", "")
    tile(page, "row 0, column 0:").focus()
    for _ in range(30):
        page.keyboard.press("ArrowDown")
    assert focused(page).startswith("row 30, column 0:"), "the focus goes on out of sight"
    page.select_option("#columns", label="none")
    page.select_option("#rows", label="none")
    assert 0 < page.locator(".tile").count() < 400
