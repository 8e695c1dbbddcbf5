"""Lists the modules that are mutated, and for each the tests that must notice: fast, and its own.

A silent fault costs most in these: what a model computes, what a converter maps, what a run trains
on, what an evaluation reports.
"""

R, C, E, V = "tests/rudolph_jax", "tests/clip_jax", "tests/experiments", "tests/converters"
FROZEN = "tests/test_frozen_dataclasses.py"

MODULES = {
    # RUDOLPH
    "rudolph_jax/layout.py": [f"{R}/test_config.py", FROZEN, f"{R}/test_masks.py"],
    "rudolph_jax/masks.py": [f"{R}/test_masks.py", f"{R}/test_cache_window.py"],
    "rudolph_jax/model.py": [f"{R}/test_parity.py", f"{R}/test_model.py"],
    "rudolph_jax/loss.py": [f"{R}/test_loss.py"],
    "rudolph_jax/sampling.py": [f"{R}/test_sampling.py", f"{R}/test_threshold.py", FROZEN],
    "rudolph_jax/threshold.py": [f"{R}/test_threshold.py", f"{R}/test_sampling.py"],
    "rudolph_jax/decode.py": [f"{R}/test_decode.py", FROZEN],
    "rudolph_jax/image_to_text.py": [f"{R}/test_tasks.py", f"{R}/test_questions.py"],
    # ruCLIP
    "clip_jax/model.py": [f"{C}/test_parity.py", f"{C}/test_model.py"],
    "clip_jax/contrastive.py": [f"{C}/test_contrastive.py"],
    "clip_jax/tokenizer.py": [f"{C}/test_tokenizer.py"],
    "clip_jax/image.py": [f"{C}/test_image.py"],
    "clip_jax/linear.py": [f"{C}/test_linear.py", f"{C}/test_matrix_products.py"],
    "clip_jax/per_example_rng.py": [f"{C}/test_per_example_rng.py"],
    # Converters
    "converters/rules.py": [f"{V}/test_rules.py", f"{V}/test_conversion.py", FROZEN],
    "converters/tensor_mapping.py": [f"{V}/test_rules.py", FROZEN],
    "converters/rudolph_tables.py": [f"{V}/test_rudolph_sizes.py", FROZEN, f"{V}/test_rudolph.py"],
    "converters/clip_tables.py": [f"{V}/test_clip_tables.py", f"{V}/test_conversion.py"],
    # Training
    "experiments/training/step.py": [f"{E}/test_step_by_hand.py"],
    "experiments/training/optimizer.py": [f"{E}/test_optimizer.py"],
    "experiments/training/schedules.py": [f"{E}/test_schedules.py"],
    "experiments/data/stream.py": [f"{E}/test_stream_order.py", f"{E}/test_data_stream.py"],
    # Evaluation
    "experiments/evaluation/metrics/classification.py": [f"{E}/test_classification_metrics.py"],
    "experiments/evaluation/methods/logistic_regression.py": [
        f"{E}/test_logistic_regression.py",
        FROZEN,
    ],
    "experiments/evaluation/methods/retrieval.py": [f"{E}/test_evaluation.py", FROZEN],
}
