"""Rule tables: inverse in both directions, and used up on both sides."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_jax.errors import InputError
from converters import hf_clip, rules
from converters.clip_tables import OPENAI_RULES, parameter_shapes
from converters.rules import Derived, Ignored, Rule
from converters.weights import Weights

TABLES = {"openai": OPENAI_RULES, "hf": hf_clip.RULES}
DERIVED = (Derived("ids.{i}", "counts", lambda config: np.arange(config)),)


def weights_of(**tensors):
    return Weights(Path("x.pt"), tensors, {}, (Path("x.pt"),))


@pytest.mark.parametrize("table", TABLES)
def test_forward_inverts_backward(small_config, rng, table):
    shapes = parameter_shapes(small_config)
    mappings = rules.resolve_rules(TABLES[table], shapes)
    assert [mapping.target for mapping in mappings] == list(shapes)
    for mapping in mappings:
        parameter = rng.normal(size=mapping.target_shape)
        sources = mapping.to_torch(parameter)
        assert [source.shape for source in sources] == [mapping.source_shape] * len(mapping.sources)
        np.testing.assert_array_equal(mapping.to_jax(sources), parameter)


def test_query_key_value_come_apart_alike(small_config, rng):
    """OpenAI's in_proj is transformers' three projections one below the other."""
    shapes = parameter_shapes(small_config)
    target = "text/layers/1/attention/qkv_kernel"
    stacked = rng.normal(size=(72, 24))
    by_table = {}
    for name, sources in (("openai", [stacked]), ("hf", np.split(stacked, 3))):
        mappings = rules.resolve_rules(TABLES[name], shapes)
        by_table[name] = next(m for m in mappings if m.target == target).to_jax(sources)
    np.testing.assert_array_equal(by_table["openai"], by_table["hf"])
    # Row 24 + 12 + 5 is key (1) of head 1, entry 5.
    np.testing.assert_array_equal(by_table["openai"][:, 1, 1, 5], stacked[24 + 12 + 5])


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
def test_sources_of_any_number_and_size(count, height, width):
    """The first axis counts the sources, unless it is one source that has the axis itself."""
    names = tuple(f"source{i}" for i in range(count))
    pattern, target = "s h w -> w s h", (width, count, height)
    (mapping,) = rules.resolve_rules([Rule(names, "a", pattern)], {"a": target})
    single = (count,) if count == 1 else ()
    assert mapping.source_shape == (*single, height, width)
    arrays = [np.full(mapping.source_shape, i) + np.arange(width) / 10 for i in range(count)]
    parameter = mapping.to_jax(arrays)
    assert parameter.shape == mapping.target_shape == target
    for place, array in enumerate(arrays):
        np.testing.assert_array_equal(parameter[:, place], array.reshape(height, width).T)
    for found, array in zip(mapping.to_torch(parameter), arrays, strict=True):
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("pattern", ["x y -> y", "x y -> (y x)", "x y -> x (y z)", "x -> x"])
def test_a_pattern_names_each_axis_of_its_target_once(pattern):
    with pytest.raises(ValueError, match="does not name each axis of"):
        rules.resolve_rules([Rule("w", "a", pattern)], {"a": (2, 3)})


def test_one_source_stays_a_view(rng):
    (mapping,) = rules.resolve_rules([Rule("a", "b", "(c h k) d -> d c h k")], {"b": (5, 3, 2, 4)})
    source = rng.normal(size=(24, 5))
    assert np.shares_memory(mapping.to_jax([source]), source)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ([], "b/0 has 0 rules"),
        ([Rule("a", "b/0"), Rule("c", "b/{i}")], "b/0 has 2 rules"),
        ([Rule("a", "b/0"), Rule("c", "d")], "filled by the rules for \\['d'\\]"),
        ([Rule("a", "b/0", "x y z -> y x z")], "does not name each axis"),
        ([Rule(("a", "c"), "b/0", "x y -> x y")], "2 sources"),
        ([Rule(("a", "c", "d", "e"), "b/0", "x y -> x y")], "4 sources"),
    ],
)
def test_mistakes_in_a_table(table, expected):
    with pytest.raises(ValueError, match=expected):
        rules.resolve_rules(table, {"b/0": (3, 4)})


def convert(weights, dtype="float32"):
    mappings = rules.resolve_rules([Rule("w", "a/b", "x y -> y x")], {"a/b": (3, 2)})
    return rules.convert(mappings, DERIVED, 4, weights, dtype, "config.json")


def test_conversion_reports_each_tensor():
    weight = np.arange(6, dtype=np.float16).reshape(2, 3)
    params, report = convert(weights_of(**{"ids.7": np.arange(4), "w": weight}))
    np.testing.assert_array_equal(params["a"]["b"], weight.T)
    assert np.asarray(params["a"]["b"]).dtype == params["a"]["b"].dtype == np.float32
    source = {"file": "x.pt", "source": "w", "source_shape": [2, 3], "source_dtype": "float16"}
    target = {"target": "a/b", "target_shape": [3, 2], "target_dtype": "float32"}
    assert report[1] == source | target
    assert report[0]["skipped"] == "counts" and report[0]["source_dtype"] == "int64"


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({}, "x.pt: tensor 'w' is missing; config.json asks for it with shape [2, 3]"),
        ({"w": np.zeros((3, 2))}, "x.pt: tensor 'w' has shape [3, 2]; config.json asks for [2, 3]"),
        ({"w": np.zeros((2, 3), np.int8)}, "x.pt: tensor 'w' is int8; expected floating point"),
        ({"w": np.zeros((2, 3)), "v": np.zeros(1)}, "x.pt: tensor 'v' is surplus"),
        ({"w": np.zeros((2, 3)), "ids.01": np.arange(4)}, "tensor 'ids.01' is surplus"),
        ({"w": np.zeros((2, 3)), "ids.1": np.arange(5)}, "tensor 'ids.1' is int64[5]"),
        ({"w": np.zeros((2, 3)), "ids.1": np.zeros(4)}, "tensor 'ids.1' is float64[4]"),
    ],
)
def test_both_sides_are_used_up(tensors, expected):
    with pytest.raises(InputError) as caught:
        convert(weights_of(**tensors))
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("number", "source", "dtype", "message"),
    [
        (1e39, np.float64, "float32", "holds 1e[+]39, beyond float32's 3.40282e[+]38$"),
        (1e39, np.float64, "bfloat16", "holds 1e[+]39, beyond bfloat16's 3.38953e[+]38$"),
        (3.4e38, np.float32, "bfloat16", "beyond bfloat16's"),
        (-7e4, np.float32, "float16", "beyond float16's 65504; choose --dtype bfloat16 or float32"),
    ],
)
def test_no_number_becomes_infinite(number, source, dtype, message):
    """A number beyond float32 became infinite without a word: only float16 was checked."""
    values = np.full((2, 3), number, source)
    with pytest.raises(InputError, match=message):
        np.asarray(convert(weights_of(w=values), dtype)[0]["a"]["b"])
    infinite = np.full((2, 3), np.sign(number) * np.inf, source)  # as the file has it
    found = np.asarray(convert(weights_of(w=infinite), dtype)[0]["a"]["b"])
    np.testing.assert_array_equal(found.astype(np.float64), infinite.T)


def test_a_number_beyond_float16_is_refused():
    weights = weights_of(w=np.full((2, 3), 1e5, np.float32))
    parameter = convert(weights, "float16")[0]["a"]["b"]
    with pytest.raises(InputError, match="tensor 'w' holds 100000.0, beyond float16"):
        np.asarray(parameter)
    parameter = np.asarray(convert(weights, "bfloat16")[0]["a"]["b"])
    assert parameter.dtype.name == "bfloat16" and parameter.shape == (3, 2)


def test_export_gives_the_original_dtypes_and_order():
    mappings = rules.resolve_rules([Rule("w", "a/b", "x y -> y x")], {"a/b": (3, 2)})
    params = {"a/b": np.arange(6, dtype=np.float32).reshape(3, 2)}
    dtypes = {"ids.3": "int32", "w": "bfloat16"}
    tensors = rules.export(mappings, DERIVED, 4, params, dtypes)
    assert list(tensors) == ["ids.3", "w"]
    assert np.asarray(tensors["ids.3"]).dtype == np.int32
    np.testing.assert_array_equal(np.asarray(tensors["w"]).astype(np.float32), params["a/b"].T)


def test_export_of_a_model_that_was_never_converted():
    """In float32, with those derived tensors that have a dtype for it."""
    mappings = rules.resolve_rules([Rule("w", "a/b", "x y -> y x")], {"a/b": (3, 2)})
    params = {"a/b": np.arange(6, dtype=np.float16).reshape(3, 2)}
    mask = Derived("mask", "of ones", lambda config: np.ones(config), export_dtype="bool")
    tensors = rules.export(mappings, (*DERIVED, mask), 4, params, None)
    assert {name: str(np.asarray(x).dtype) for name, x in tensors.items()} == {
        "w": "float32",
        "mask": "bool",
    }


def test_a_derived_tensor_with_other_values_says_how_many():
    weights = weights_of(w=np.zeros((2, 3)), **{"ids.1": np.array([0, 1, 5, 3])})
    with pytest.raises(InputError, match="'ids.1' is int64.*they differ in 1 of 4 places"):
        convert(weights)


def test_tensors_behind_an_ignored_one_are_checked_too():
    mappings = rules.resolve_rules([Rule("w", "b")], {"b": (2, 3)})
    table = (*DERIVED, Ignored("buffer.*", "is unused"))
    tensors = {"buffer.mean": np.zeros(3), "w": np.zeros((2, 3)), "ids.1": np.arange(4)}
    _, report = rules.convert(mappings, table, 4, weights_of(**tensors), "float32", "config.json")
    assert [entry.get("skipped") for entry in report] == ["is unused", None, "counts"]
    assert [entry.get("lost") for entry in report] == [True, None, None]
    for wrong in ({"ids.1": np.arange(4)[::-1]}, {"ids.1": np.arange(4), "other": np.zeros(1)}):
        weights = weights_of(**(tensors | wrong))
        with pytest.raises(InputError, match=list(wrong)[-1]):
            rules.convert(mappings, table, 4, weights, "float32", "config.json")


def test_parameters_are_read_one_at_a_time_and_their_files_given_back(monkeypatch):
    released = []
    weights = weights_of(w=np.zeros((2, 3)))
    monkeypatch.setattr(Weights, "release", lambda self, name: released.append(name))
    parameter = convert(weights)[0]["a"]["b"]
    assert released == []
    np.asarray(parameter)
    assert released == ["w"]
