"""Results show themselves in notebooks; bars are widgets only where ipywidgets is installed."""

import base64
import io
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rudolph_jax
from clip_jax import InputError
from clip_jax.html_sheet import LARGEST, SMALLEST
from clip_jax.search import SearchResult, SearchResults

RED, BLUE = Image.new("RGB", (16, 8), "red"), Image.new("RGB", (16, 8), "blue")


def images_of(html):
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_show_holds_each_image_with_its_caption():
    shown = rudolph_jax.show([RED, np.asarray(BLUE)], ["кот & <b>пёс</b>", ""], [0.12345, 2])
    html = shown._repr_html_()
    red, blue = images_of(html)
    assert red.size == blue.size == (SMALLEST, SMALLEST // 2)  # magnified by a whole number
    assert red.getpixel((0, 0)) == (255, 0, 0) and blue.getpixel((50, 50)) == (0, 0, 255)
    captions = re.findall(r"<figcaption[^>]*>(.*?)</figcaption>", html)
    assert captions == ["кот &amp; &lt;b&gt;пёс&lt;/b&gt;<br>0.123", "2.000"]
    assert "<b>" not in html
    assert repr(shown) == "ImageSheet(2 images; кот & <b>пёс</b>, 0.123; 2.000)"


def test_a_caption_cannot_leave_the_attribute_it_is_in():
    html = rudolph_jax.show([RED], ['" onerror="alert(1)'])._repr_html_()
    assert '" onerror' not in html and "&quot; onerror=&quot;" in html


def test_show_takes_results_of_dream():
    results = [{"score": 0.5, "ppl_txt": 2.0, "codes": np.zeros(3)}, {"cosine": 0.25}]
    assert rudolph_jax.show([RED, BLUE], scores=results).captions == ["score 0.500", "cosine 0.250"]


def test_large_images_are_reduced_and_their_source_is_not():
    large = Image.new("RGB", (2 * LARGEST, LARGEST))
    (small,) = images_of(rudolph_jax.show([large])._repr_html_())
    assert small.size == (LARGEST, LARGEST // 2) and large.size == (2 * LARGEST, LARGEST)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((RED,), "images are one image"),
        (([RED], "кот"), "captions are 'кот', one text"),
        (([RED], ["а", "б"]), "2 captions were given for 1 images"),
        (([RED], None, [1, 2]), "2 scores were given for 1 images"),
        (([RED], None, 0.5), "scores are 0.5; expected a list of numbers"),
        (([RED], None, ["best"]), r"scores\[0\] is 'best'; expected a number"),
        (([RED], None, [{"text": "а"}]), r"scores\[0\] has no score or cosine"),
    ],
)
def test_show_refuses_what_does_not_fit(arguments, message):
    with pytest.raises(InputError, match=message):
        rudolph_jax.show(*arguments)


def test_search_results_show_their_images_and_survive_a_removed_file(tmp_path):
    RED.save(tmp_path / "a&b.png")
    results = SearchResults(
        [SearchResult(tmp_path / "a&b.png", 0.75), SearchResult(tmp_path / "gone.png", 0.5)]
    )
    assert results == list(results)  # a list like any other
    html = results._repr_html_()
    assert len(images_of(html)) == 1
    assert "a&amp;b.png<br>cosine 0.750" in html and "gone.png: no such image" in html


def bar_in_a_kernel(widgets: bool) -> str:
    """Returns what a child says that looks like a notebook, with or without ipywidgets."""
    code = f"""
        import sys, types, warnings
        warnings.simplefilter("error")
        shell = types.SimpleNamespace(config={{"IPKernelApp": {{}}}})
        sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: shell)
        sys.modules["ipykernel.zmqshell"] = types.ModuleType("ipykernel.zmqshell")
        if {widgets}:
            sys.modules["tqdm.notebook"] = notebook = types.ModuleType("tqdm.notebook")
            import tqdm.std
            notebook.IProgress, notebook.WARN_NOIPYW, notebook.trange = object, "", None
            notebook.tqdm = type("tqdm", (tqdm.std.tqdm,), {{"__module__": "tqdm.notebook"}})
        else:
            sys.modules["ipywidgets"] = None
        from clip_jax import progress
        bar = progress.progress_bar(3, "images", quiet=False)
        quiet = progress.progress_bar(3, "images", quiet=True)
        print(progress.HAS_WIDGETS, bar.disable, quiet.disable)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True,
        cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr
    return done.stdout.strip()


def test_bars_are_widgets_only_where_ipywidgets_is_installed_and_nothing_warns():
    assert bar_in_a_kernel(widgets=True) == "True False True"
    assert bar_in_a_kernel(widgets=False) == "False True True"
