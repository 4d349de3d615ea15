"""A catalogue as people see it: in Chromium, with a mouse, with a keyboard alone, on a phone, in the dark, in Chinese, with 500 images."""

from __future__ import annotations

import json
import re

import pytest

from tests import showcase
from tests.browser.conftest import PHONE
from torchstrata.catalogue.site import slug

SERIES = showcase.catalogue(72).current
SSH = next(image for image in SERIES if image.cell == "2.8-cu121-debian13" and image.image == "ssh")
PAGES = ("index.html", "images.html", "trends.html", f"images/{slug(SSH)}.html")
RUN_AXE = "async () => (await axe.run(document, {preload: false})).violations.map(one => `${one.id}: ${one.nodes[0].html} ${one.nodes.length}`)"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def value(page, name):
    """Return what a field of the picker has."""
    return page.locator(f"#picker [name={name}]").input_value()


def shown(page, what):
    """Return a line of the picker's answer."""
    return page.locator(f"#pick-{what}").inner_text()


def clipboard(reader, page):
    """Return what was copied."""
    reader.context.grant_permissions(["clipboard-read", "clipboard-write"])
    return page.evaluate("navigator.clipboard.readText()")


def test_the_picker_leads_from_versions_to_lines(visit, small):
    """What is chosen first narrows what can be chosen next; the answer is a tag, a digest and the lines that use it."""
    page = visit(small).open()
    assert value(page, "torch") == "2.15"
    page.select_option("[name=torch]", "2.8")
    assert page.locator("[name=cuda] option").all_inner_texts() == ["cu121"]
    page.select_option("[name=os]", "debian12")
    page.select_option("[name=flavour]", "jupyter")
    wanted = next(image for image in SERIES if image.cell == "2.8-cu121-debian12" and image.image == "jupyter")
    assert page.locator("#result-name").inner_text() == "2.8-cu121-debian12-jupyter"
    assert shown(page, "digest") == wanted.digest
    assert shown(page, "pull") == f"docker pull {showcase.PLACE}@{wanted.digest}"
    page.wait_for_function("document.querySelector('#pick-run').textContent.includes('docker run')")
    assert "--gpus all" in shown(page, "run")
    assert "8888:8888" in shown(page, "run")


def test_the_picker_has_the_files_of_launchers(visit, small):
    """Each names the image by its digest, and can be copied."""
    reader = visit(small)
    reader.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = reader.open()
    page.wait_for_selector("#pick-files:not([hidden])")
    files = page.locator("#pick-file-list details")
    assert {"compose.yaml", "pod.yaml", "job.sbatch"} <= set(page.locator("#pick-file-list summary code").all_inner_texts())
    files.nth(0).locator("summary").click()
    files.nth(0).locator("button").click()
    page.wait_for_selector("#pick-file-list button.done")
    copied = clipboard(reader, page)
    assert shown(page, "digest") in copied
    assert "services:" in copied


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (("580.95.05", "9.0", "base"), "2.15-cu132-debian13-base fits."),
        (("530.30", "7.0", "base"), "2.8-cu121-debian13-base fits."),
        (("530.30", "9.0", "devel"), "2.8-cu121-debian13-devel fits."),
        (("450.80", "8.0", "base"), "No image here uses this GPU; 2.13-cpu-debian12-base runs without it."),
        (("", "5.2", "base"), "2.4-cu121-debian12-base fits."),
        (("", "", "ssh"), "2.13-cpu-debian12-ssh fits."),
        (("new", "9.0", "base"), "This is no version of a driver: write digits and dots, such as 550.54.15"),
    ],
)
def test_the_picker_knows_what_a_machine_runs(visit, small, asked, answer):
    """By the driver, the GPU or neither; the newest torch that runs there comes first."""
    page = visit(small).open()
    page.get_by_text("My driver and my GPU").click()
    driver, gpu, flavour = asked
    page.fill("[name=driver]", driver)
    page.select_option("[name=gpu]", gpu)
    page.select_option("[name=flavour]", flavour)
    assert page.locator("#answer").inner_text() == answer
    assert page.locator("#result").is_visible() == ("debian" in answer)


def test_the_picker_says_why_others_do_not_fit(visit, small):
    """Each with its reason."""
    page = visit(small).open()
    page.get_by_text("My driver and my GPU").click()
    page.fill("[name=driver]", "530.30")
    page.select_option("[name=gpu]", "7.0")
    page.locator("#refused summary").click()
    text = page.locator("#refused ul").inner_text()
    assert "2.15-cu132-debian13-base: torch has no code for V100" in text
    assert "2.13-cpu-debian12-base: does not use a GPU" in text


@pytest.mark.parametrize("what", ["tag", "digest", "pull", "run"])
def test_buttons_copy(visit, small, what):
    """Exactly what is shown; the button says so for a moment."""
    reader = visit(small)
    reader.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = reader.open(PAGES[3])
    page.click(f"button[data-copy={what}]")
    page.wait_for_selector(f"button[data-copy={what}].done")
    assert clipboard(reader, page) == page.locator(f"#{what}").text_content()


def test_buttons_copy_where_the_clipboard_is_not_for_pages(visit, small):
    """Pages of a host without TLS have none; then the selection is copied."""
    reader = visit(small)
    reader.page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page = reader.open()
    page.click("button[data-copy=pick-digest]")
    page.wait_for_selector("button[data-copy=pick-digest].done")
    digest, field = shown(page, "digest"), reader.context.new_page()
    field.set_content("<textarea autofocus></textarea>")
    field.focus("textarea")
    field.keyboard.press("Control+V")
    assert field.input_value("textarea") == digest


def test_the_grid_says_what_there_is_and_why_not(visit, small):
    """A cell with images leads to them; one that cannot be tells why, and closes by Escape."""
    page = visit(small).open()
    box = page.locator("#matrix td.has").filter(has_text="v2.13")
    assert "Failed tests" in box.inner_text()
    page.locator("#matrix td.impossible button.why").first.click()
    dialog = page.locator("[popover]:popover-open")
    assert "has Python 3.10" in dialog.inner_text()
    page.keyboard.press("Escape")
    assert page.locator("[popover]:popover-open").count() == 0
    box.get_by_role("link").first.click()
    assert page.locator("h1").inner_text() == "2.13-cpu-debian12-base"


def test_a_keyboard_is_enough(visit, small):
    """From the skip link by the picker to a copied line, without a mouse; what has the focus can be seen."""
    reader = visit(small)
    reader.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = reader.open()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == "mode":
            break
    page.keyboard.press("ArrowRight")
    assert page.locator("[name=driver]").is_visible()
    page.keyboard.press("Tab")
    page.keyboard.type("580.95")
    page.keyboard.press("Tab")
    page.keyboard.type("H100")
    assert page.locator("#answer").inner_text() == "2.15-cu132-debian13-base fits."
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.copy") == "pick-pull":
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("button[data-copy=pick-pull].done")
    assert clipboard(reader, page).startswith("docker pull ")


@pytest.mark.parametrize("path", [*PAGES, *(f"zh/{path}" for path in PAGES)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visit, small, axe, path, scheme):
    """No violation of its rules, contrast among them; in both languages, by day and by night."""
    page = visit(small, color_scheme=scheme, bypass_csp=True).open(path)
    page.evaluate(axe)
    assert page.evaluate(RUN_AXE) == []


def test_axe_finds_nothing_in_what_opens(visit, small, axe):
    """The answer for a machine, a reason, a list of what does not fit, a file."""
    page = visit(small, bypass_csp=True).open()
    page.get_by_text("My driver and my GPU").click()
    page.select_option("[name=gpu]", "9.0")
    for summary in page.locator("#pick summary:visible").all():
        summary.click()
    page.locator("#matrix td.impossible button.why").first.click()
    page.evaluate(axe)
    assert page.evaluate(RUN_AXE) == []


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("language", ["", "zh/"])
def test_a_phone_is_wide_enough(visit, small, path, language):
    """No page scrolls sideways; wide tables do in themselves."""
    page = visit(small, **PHONE).open(f"{language}{path}")
    assert page.evaluate(OVERFLOW) <= 0


def test_the_dark_is_dark(visit, small):
    """By what the reader's system asks for."""
    lightness = {}
    for scheme in ("light", "dark"):
        page = visit(small, color_scheme=scheme).open()
        lightness[scheme] = sum(map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))))
    assert lightness["dark"] < 150
    assert lightness["light"] > 600


def test_chinese_is_one_click_away(visit, small):
    """On the same page; its script speaks it too."""
    page = visit(small).open(PAGES[3])
    page.get_by_role("link", name="简体中文").click()
    assert page.url.endswith(f"/zh/{PAGES[3]}")
    assert page.locator("html").get_attribute("lang") == "zh-Hans"
    assert "软件包" in page.locator("#packages h2").inner_text()
    page.goto(f"{small.as_uri()}/zh/index.html")
    page.get_by_text("我的驱动和 GPU").click()
    page.fill("[name=driver]", "450.80")
    page.select_option("[name=gpu]", "9.0")
    assert page.locator("#answer").inner_text().startswith("这里没有可用此 GPU 的镜像")


def test_any_two_images_can_be_compared(visit, small):
    """What differs between them, loaded when somebody asks."""
    page = visit(small).open(PAGES[3])
    page.locator("#compare summary").click()
    other = next(image for image in SERIES if image.cell == "2.8-cu121-debian12" and image.image == "ssh")
    page.wait_for_function("document.querySelector('#compare select').options.length > 10")
    page.select_option("#compare select", slug(other))
    page.wait_for_selector("#compare-table table")
    rows = page.locator("#compare-table tbody tr").all_inner_texts()
    assert any("torchstrata.os" in row and "debian12" in row and "debian13" in row for row in rows)


def test_five_hundred_images_are_no_burden(visit, large):
    """All in the list, found by words; the picker still has the newest of each."""
    page = visit(large).open("images.html")
    assert page.locator("#images tbody tr").count() == 500
    page.fill("[name=words]", "2.8 jupyter debian12 202606")
    assert page.locator("#images tbody tr:visible").count() > 0
    texts = page.locator("#images tbody tr:visible").all_inner_texts()
    assert all("2.8-cu121-debian12-jupyter" in text for text in texts)
    assert page.locator("#shown").inner_text() == f"{len(texts)} of 500 images"
    page.goto(f"{large.as_uri()}/index.html")
    assert value(page, "torch") == "2.15"
    data = json.loads(page.locator("#catalogue").text_content())
    assert len(data["images"]) == len(showcase.catalogue(500).current)


@pytest.mark.parametrize(("path", "form"), [("index.html", "#picker"), ("images.html", "#filter")])
def test_pages_work_without_javascript(visit, small, path, form):
    """The matrix, the list and each image can be read; where the picker would be, the list is named."""
    page = visit(small, java_script_enabled=False).open(path)
    assert page.locator("main a[href^='images/']").count() > 20
    assert page.locator(form).count() == 1
    assert page.locator(form).is_hidden()
    assert page.locator("noscript a[href='images.html']").count() == (path == "index.html")
