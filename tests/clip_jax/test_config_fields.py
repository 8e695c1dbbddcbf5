"""Every field of every config with ten invalid values: an error of one line that names it."""

import dataclasses
import json
import math
import typing

import pytest

from clip_jax import PRESETS, RUCLIP_SMALL, ClipConfig, Compute, ImageConfig, InputError
from clip_jax.config_fields import _field_types, _is_dataclass_type, _is_tuple, describe_type
from experiments.config.run import TrainConfig, default_config
from rudolph_jax import PRESETS as RUDOLPH_PRESETS
from rudolph_jax import UPSCALER_PRESETS, VQGAN_PRESETS, VqganConfig

HUGE, NAN, INF = 10**30, math.nan, math.inf
WRONG = {
    int: ("1", True, 1.5, None, [], {}, HUGE, -HUGE, NAN, 1 << 63),
    float: ("1", True, None, [], {}, NAN, INF, -INF, 10**400, ["1"]),
    bool: (0, 1, "x", "true", -1, [], {}, 1.0, NAN, HUGE),
    str: (0, True, None, [], {}, 1.5, NAN, HUGE, ["gelu"], [None]),
    tuple: ("x", 1, True, 0.5, {}, [None], [[]], [{}], [NAN], [HUGE]),
    dict: ("x", 1, True, 0.5, None, [], ["x"], NAN, -1, HUGE),
}
MODELS = {
    "clip": PRESETS["tiny"],
    "ruclip-small": RUCLIP_SMALL,
    "rudolph": RUDOLPH_PRESETS["tiny"],
    "vqgan": VQGAN_PRESETS["tiny"],
    "upscaler": UPSCALER_PRESETS["tiny"],
}
RUNS = {name: default_config(name) for name in ("clip", "vqgan", "rudolph")}


def base_of(kind):
    if _is_dataclass_type(kind):
        return dict
    if _is_tuple(kind):
        return tuple
    parts = typing.get_args(kind) or (kind,)
    return next(base for base in (bool, int, float, str) if base in parts)


def fields_of(config, path=()):
    """Lists (path of names, type) of every field, nested ones included."""
    for name, kind in _field_types(type(config)).items():
        yield (*path, name), kind
        if _is_dataclass_type(kind):
            yield from fields_of(getattr(config, name), (*path, name))


def with_value(data, path, value):
    name, *rest = path
    return {**data, name: with_value(data[name], rest, value) if rest else value}


def check_all(config, build):
    """Returns the numbers of fields and of values that were tried."""
    data, fields, tried = config.to_dict(), 0, 0
    for path, kind in fields_of(config):
        fields += 1
        for value in WRONG[base_of(kind)]:
            with pytest.raises(InputError) as caught:
                build(with_value(data, path, value))
            message = str(caught.value)
            assert path[-1] in message, (path, value, message)
            assert "\n" not in message and len(message) < 400, (path, value, message)
            tried += 1
    return fields, tried


@pytest.mark.parametrize("kind", MODELS)
def test_every_field_of_a_model_with_ten_wrong_values(kind):
    config = MODELS[kind]
    fields, tried = check_all(config, type(config).from_dict)
    assert tried == 10 * fields and fields >= (4 if kind == "upscaler" else 9)


@pytest.mark.parametrize("objective", RUNS)
def test_every_field_of_a_run_with_ten_wrong_values(objective):
    fields, tried = check_all(RUNS[objective], TrainConfig.from_dict)
    assert tried == 10 * fields and fields > 80


@pytest.mark.parametrize("config", [*MODELS.values(), Compute()], ids=lambda c: type(c).__name__)
def test_direct_construction_is_checked_too(config):
    parts = [config, *(v for v in vars(config).values() if dataclasses.is_dataclass(v))]
    for part in parts:
        for name, kind in _field_types(type(part)).items():
            for value in WRONG[base_of(kind)]:
                with pytest.raises(InputError, match=name):
                    dataclasses.replace(part, **{name: value})


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_every_size_has_an_upper_bound(config):
    for path, kind in fields_of(config):
        if base_of(kind) is int:
            assert "up to" in describe_type(kind), path
            for value in (-1, 1 << 31):
                with pytest.raises(InputError, match=rf"{path[-1]} is {value}; expected"):
                    type(config).from_dict(with_value(config.to_dict(), path, value))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("vision", "layers"), HUGE, f"vision.layers is {HUGE}; expected a positive integer up to"),
        (("vision", "layers"), -1, "vision.layers is -1; expected a positive integer up to 1000"),
        (("vision", "image_size"), 10**9, "vision.image_size is 1000000000; expected a positive"),
        (("vision", "image_size"), 1 << 14, "vision.image_size is 16384, 4194304 patches of"),
        (("text", "vocab_size"), 10**12, "text.vocab_size is 1000000000000; expected a positive"),
        (("text", "context_length"), 10**9, "text.context_length is 1000000000; expected a pos"),
        (("text", "context_length"), 10**4000, "text.context_length is an integer of some"),
        (("image", "std"), [1, 1, -1], "image.std is (1, 1, -1); expected three positive numbers"),
        (("image", "std"), [0, 0, 0], "image.std is (0, 0, 0); expected three positive numbers"),
        (("image", "std"), -1, "image.std is -1; expected three positive numbers"),
        (("image", "mean"), ["a", "b", "c"], "image.mean is ('a', 'b', 'c'); expected three num"),
        (("lowercase",), "x", "lowercase is 'x'; expected true or false"),
        (("layer_norm_epsilon",), {}, "layer_norm_epsilon is of type dict; expected a number abo"),
        (("layer_norm_epsilon",), 0, "layer_norm_epsilon is 0; expected a number above 0 and "),
        (("activation",), "gelu\n\x1b[31m", r"activation is 'gelu\n\x1b[31m'; expected one of"),
        (("activation",), "x" * 10**6, "activation is '" + "x" * 60 + "'...; expected one of"),
    ],
)  # fmt: skip
def test_named_cases(path, value, message):
    with pytest.raises(InputError) as caught:
        ClipConfig.from_dict(with_value(PRESETS["tiny"].to_dict(), path, value))
    assert str(caught.value).startswith(message)


def test_a_sequence_of_many_tokens():
    with pytest.raises(InputError, match="a sequence of 5616 tokens; expected at most 4096"):
        dataclasses.replace(
            RUDOLPH_PRESETS["tiny"], image_tokens_per_side=60, left_text_length=2000,
            right_text_length=16,
        )  # fmt: skip


def test_json_lists_and_integers_are_accepted():
    """Lists for tuples, integers for numbers."""
    data = json.loads(json.dumps(PRESETS["tiny"].to_dict()))
    data["image"] |= {"mean": [0, 0, 0], "std": [1, 1, 1]}
    assert ClipConfig.from_dict(data).image == ImageConfig(mean=(0.0,) * 3, std=(1.0,) * 3)
    assert VqganConfig(attention_levels=()).attention_levels == ()


@pytest.mark.parametrize("data", [None, [], "x", 3, [["vision", {}]]])
def test_config_that_is_no_object(data):
    for config in MODELS.values():
        with pytest.raises(InputError, match="config"):
            type(config).from_dict(data)
