from benchmarks import encode
from clip_jax.config import PRESETS

B32 = PRESETS["ruclip-vit-base-patch32-224"]


def test_both_towers_are_timed_and_agree(tables):
    found = tables("encode", "--preset=tiny", "--batches=2")
    assert [table["unit"] for table in found] == ["images", "texts"]
    for table in found:
        exact, rounded = table["rows"]
        assert exact["name"] == "ours float32" and exact["drift"] == 0
        assert 0 < rounded["drift"] < 0.2 and rounded["rate"] > 0


def test_flops_of_b32_agree_with_open_clip():
    """Compare with docs/model_profile.csv of open_clip: 8.82 and 5.96 GFLOP for ViT-B-32."""
    image, _ = encode.cost(B32, "image", 1, "float32")
    text, _ = encode.cost(B32, "text", 1, "float32")
    assert abs(image / 8.82e9 - 1) < 0.02
    assert abs(text / 5.96e9 - 1) < 0.02


def test_kernels_are_read_once_a_batch_and_half_as_large_in_bfloat16():
    flops, read = encode.cost(B32, "image", 1, "float32")
    assert encode.cost(B32, "image", 4, "bfloat16") == (4 * flops, read / 2)
    assert 85e6 * 4 < read < 88e6 * 4
