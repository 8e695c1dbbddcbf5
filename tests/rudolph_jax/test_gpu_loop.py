"""The sampler's loop as a graph: on GPUs alone, and never where it is turned off."""

import jax
import jax.numpy as jnp
import pytest

from rudolph_jax import gpu_loop


@pytest.mark.parametrize(
    ("platform", "variable", "expected"),
    [("gpu", None, True), ("gpu", "1", True), ("gpu", "0", False), ("tpu", None, False),
     ("cpu", None, False)],
)  # fmt: skip
def test_the_platform_and_the_variable_decide(monkeypatch, platform, variable, expected):
    monkeypatch.setattr(gpu_loop, "traced_platform", lambda: platform)
    monkeypatch.delenv(gpu_loop.VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(gpu_loop.VARIABLE, variable)
    assert gpu_loop.in_use() is expected
    assert bool(gpu_loop.options()) is expected
    with gpu_loop.forced(False):
        assert not gpu_loop.in_use()
    with gpu_loop.forced(True):
        assert gpu_loop.in_use() is (platform == "gpu")


def test_the_compiler_knows_the_options():
    """Its parser is the same on all platforms: an unknown name or command is an error."""
    run = jax.jit(lambda x: x + 1, compiler_options=gpu_loop.OPTIONS)
    assert run(jnp.float32(1)) == 2
    for wrong in ({"xla_gpu_enable_command_buffers": "WHILE"},
                  {"xla_gpu_enable_command_buffer": "WHILST"}):  # fmt: skip
        with pytest.raises(jax.errors.JaxRuntimeError, match="INVALID_ARGUMENT"):
            jax.jit(lambda x: x + 2, compiler_options=wrong)(jnp.float32(1))
