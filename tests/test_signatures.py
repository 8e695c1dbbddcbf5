"""Public functions say in their signatures what they take, for editors, mypy and readers."""

import inspect

import pytest

import clip_jax
import converters
import rudolph_jax
from clip_jax import search

MODULES = (clip_jax, search, rudolph_jax, rudolph_jax.tasks, converters)
# Methods that pass keywords on as data: config.json's provenance.
MAY_TAKE_ANY_KEYWORD = {"save"}


def public_functions():
    """Yields (name, function) of each function and each method written here."""
    for module in MODULES:
        names = getattr(module, "__all__", None) or [
            name for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
        ]  # fmt: skip
        for name in names:
            value = getattr(module, name)
            if inspect.isfunction(value):
                yield f"{module.__name__}.{name}", value
            if inspect.isclass(value) and not issubclass(value, Exception):
                for method, function in vars(value).items():
                    own = inspect.isfunction(function) and function.__module__ == value.__module__
                    # Constructors of dataclasses and Flax modules are generated from typed fields.
                    written = own and "__create_fn__" not in function.__qualname__
                    if written and (method in ("__init__", "__call__") or method[0] != "_"):
                        yield f"{module.__name__}.{name}.{method}", function


FUNCTIONS = dict(public_functions())


def test_the_walk_finds_functions_methods_and_constructors():
    assert {
        "clip_jax.load", "clip_jax.Predictor.__init__", "clip_jax.Processor.__call__",
        "clip_jax.search.build_image_index", "clip_jax.search.ImageIndex.search",
        "rudolph_jax.tasks.dream", "rudolph_jax.PretrainedRudolph.loss", "converters.convert",
    } <= set(FUNCTIONS)  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signature(name):
    signature = inspect.signature(FUNCTIONS[name])
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        assert parameter.annotation is not inspect.Parameter.empty, f"{name}: {parameter}"
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            assert name.rpartition(".")[2] in MAY_TAKE_ANY_KEYWORD, f"{name}: {parameter}"
        assert parameter.kind is not inspect.Parameter.VAR_POSITIONAL, f"{name}: {parameter}"
    assert signature.return_annotation is not inspect.Signature.empty, name


def test_sampling_keywords_are_in_every_signature_that_samples():
    wanted = {"temperature", "seed", "batch_size", "quiet"}
    for name in ("dream", "draw_images", "draw_in_batches", "image_captioning", "generate_texts"):
        assert wanted <= set(inspect.signature(getattr(rudolph_jax.tasks, name)).parameters), name
