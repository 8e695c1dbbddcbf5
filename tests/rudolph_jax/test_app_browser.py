"""The page as a person uses it, in headless Chromium, on tiny models: `make test-browser`."""

import json
import os
import socket
import urllib.error
import urllib.parse
import urllib.request
import zipfile

import pytest
from PIL import Image

import converters
from docs.tools.browser import Page, asked_elsewhere, browser, served

pytestmark = pytest.mark.browser
MARKUP = "<img src=x onerror=alert(1)> **b** [l](javascript:alert(1)) ${7*7} {{7*7}}"
MANY = 3000  # more drawings than anyone waits for


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos") / "<i>${7*7}"
    folder.mkdir()
    Image.new("RGB", (40, 30), "black").save(folder / f"{MARKUP}.png")
    for color in ("red", "lime", "blue"):
        Image.new("RGB", (40, 30), color).save(folder / f"{color}.png")
    (folder / "broken.jpg").write_text("words")
    return folder


@pytest.fixture(scope="module")
def proxy():
    """A proxy that nobody is to ask."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


@pytest.fixture(scope="module")
def server(folders, goldens, photos, proxy, tmp_path_factory):
    home = tmp_path_factory.mktemp("server")
    converters.convert("ruclip", goldens / "ruclip", home / "ruclip")
    address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), address)
    environment = {**os.environ, "XDG_CACHE_HOME": str(home / "cache"), **proxies}
    arguments = [
        f"--model={folders / 'rudolph'}", f"--vqgan={folders / 'vqgan'}", "--batch-size=1",
        f"--ruclip={home / 'ruclip'}", f"--images={photos}", f"--max-images={MANY}",
        "--max-megapixels=1", "--max-upload-mb=1",
    ]  # fmt: skip
    with served(arguments, environment) as server:
        yield server


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chromium")
    with browser(folder) as driver:
        driver.downloads = folder / "downloads"
        yield driver


@pytest.fixture
def page(server, chromium):
    return Page(chromium, server.url)


def test_a_prompt_is_drawn_and_downloaded(page, chromium):
    page.write("prompt", "лес")
    page.write("count", "3")
    page.press("draw")
    said = page.wait_for("drawn", "best first")
    assert said == "3 drawn, the best first by ruCLIP's cosine"
    images = page.wait(lambda: len(page.find("drawings", "img")) == 3 and page.find("drawings"))
    cosines = [float(text) for text in images[0].text.split()]
    assert len(cosines) == 3 and cosines == sorted(cosines, reverse=True)
    page.press("archive")
    file = chromium.downloads / "drawings.zip"
    page.wait(file.exists)
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == ["01.png", "02.png", "03.png", "sheet.png"]
        with archive.open("01.png") as png, Image.open(png) as image:
            assert image.size == (24, 24) and image.text["prompt"] == "лес"
            assert float(image.text["cosine"]) == pytest.approx(cosines[0], abs=6e-4)
    address = page.find("drawings", "img")[0].get_attribute("src")
    with urllib.request.urlopen(address) as seen, zipfile.ZipFile(file) as archive:
        assert seen.read() == archive.read("01.png")


def test_a_drawing_is_stopped_and_the_queue_goes_on(page, photos):
    page.write("prompt", "лес")
    page.write("count", str(MANY))
    page.press("draw")
    page.wait(lambda: len(page.find("drawings", "img")) > 1)
    page.press("stop")
    said = page.wait_for("drawn", "Stopped with")
    drawn = int(said.split()[2])
    assert 1 < drawn < MANY and said.endswith(f"of {MANY}, the best first by ruCLIP's cosine")
    page.write("count", "2")
    page.press("draw")
    page.wait_for("drawn", "2 drawn")


def test_a_page_that_is_closed_frees_the_queue(page, chromium):
    first = chromium.current_window_handle
    chromium.switch_to.new_window("tab")
    other = Page(chromium, page.url)
    other.write("prompt", "лес")
    other.write("count", str(MANY))
    other.press("draw")
    other.wait(lambda: len(other.find("drawings", "img")) > 1)
    chromium.close()
    chromium.switch_to.window(first)
    page.write("prompt", "дом")
    page.write("count", "1")
    page.press("draw")
    page.wait_for("drawn", "1 drawn")


def test_a_image_is_captioned(page, photos):
    page.turn_to("Caption")
    page.upload("caption-image", photos / "red.png")
    page.write("begin", "лес")
    page.press("caption")
    said = page.wait_for("captions", "score")
    assert said.startswith("лес") and "generated" in said


def test_a_label_is_read(page, photos):
    page.turn_to("Classify")
    page.upload("classify-image", photos / "lime.png")
    page.write("labels", "лес, дом")
    page.press("classify")
    for part in ("by-ruclip", "by-rudolph"):
        said = page.wait_for(part, "%")
        assert "лес" in said and "дом" in said


def test_a_folder_is_searched(page):
    page.turn_to("Search")
    page.write("sought", "лес")
    page.press("search")
    said = page.wait_for("searched", "images in the folder")
    assert said == "4 images in the folder <i>${7*7}; 1 unreadable files skipped"
    page.wait(lambda: len(page.find("found", "img")) == 4)
    found = [each.text.split(maxsplit=1) for each in page.find("found", ".caption-label")]
    assert sorted(name for _, name in found) == [
        f"{MARKUP}.png", "blue.png", "lime.png", "red.png"
    ]  # fmt: skip
    cosines = [float(cosine) for cosine, _ in found]
    assert cosines == sorted(cosines, reverse=True)
    page.find("found", "button img")[0].click()  # the preview shows the caption once more
    assert_plain(page)


def assert_plain(page):
    """Nothing on the page was made of MARKUP; Chromium would show a dialog, and fail here."""
    find = page.driver.find_elements
    assert not find("css selector", "img[src=x], a[href^=javascript], .gradio-container i")
    assert "49" not in page.driver.find_element("tag name", "body").text


def test_markup_of_labels_and_errors_is_text(page, photos):
    page.turn_to("Classify")
    page.upload("classify-image", photos / "lime.png")
    page.write("labels", "<i>x, **b**")
    page.press("classify")
    for part in ("by-ruclip", "by-rudolph"):
        said = page.wait_for(part, "%")
        assert "<i>x" in said and "**b**" in said
    page.write("template", MARKUP)
    page.press("classify")
    assert MARKUP in page.error()
    assert_plain(page)


def test_mistakes_are_one_line(page, photos, tmp_path):
    page.press("draw")
    assert page.error() == ("the prompt is empty; expected a text such as «рукописная цифра семь»")
    page.wait_for("drawn", "Write a prompt")
    page.turn_to("Classify")
    page.write("labels", "лес")
    page.press("classify")
    assert page.error() == "no image was given; upload one"
    large = tmp_path / "large.png"
    Image.new("1", (1001, 1000)).save(large)
    page.upload("classify-image", large)
    page.press("classify")
    assert page.error() == "the image has 1001x1000 pixels; expected 1 megapixels at most"


def test_files_beyond_the_page_are_not_served(server, folders, photos):
    for path in (folders / "rudolph" / "config.json", photos / "red.png", "/etc/hostname"):
        file = urllib.parse.quote(str(path))
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{server.url}/gradio_api/file={file}")
        assert caught.value.code == 403
    other = urllib.request.Request(server.url, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(other)
    assert caught.value.code == 403


def captioned(server, file):
    """Sends `file` as if it were uploaded, and returns the server's answer."""

    def ask(path, content=None):
        body = None if content is None else json.dumps(content).encode()
        headers = {"Content-Type": "application/json"}
        asked = urllib.request.Request(f"{server.url}{path}", body, headers)
        with urllib.request.urlopen(asked) as answer:
            return answer.read().decode()

    config = json.loads(ask("/config"))
    (button,) = (
        part["id"] for part in config["components"] if part["props"].get("elem_id") == "caption"
    )
    (function,) = (
        each["id"] for each in config["dependencies"] if [button, "click"] in each["targets"]
    )
    image = {"path": file, "meta": {"_type": "gradio.FileData"}}
    who = {"fn_index": function, "session_hash": "another"}
    ask("/gradio_api/queue/join", {"data": [image, "", 1, 0], **who})
    return ask("/gradio_api/queue/data?session_hash=another")


def test_files_and_addresses_are_not_taken_for_uploads(server, folders):
    assert '"success":false' in captioned(server, str(folders / "red.png"))
    told = captioned(server, "http://203.0.113.7/red.png")
    assert '"success":false' in told and "only uploaded files are accepted as images" in told


def test_nothing_was_asked_of_others(page, chromium, proxy):
    """By the pages of the tests above and by their server, which had a proxy to ask."""
    assert asked_elsewhere(chromium) == []
    with pytest.raises(BlockingIOError):
        proxy.accept()


def test_it_ends_when_it_is_told_to(server):
    server.process.terminate()
    assert server.process.wait() == 0
