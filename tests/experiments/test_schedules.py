import numpy as np
import pytest

from experiments.config.optimizer import SCHEDULES, OptimConfig
from experiments.training import schedules
from experiments.training.schedules import make_schedule


@pytest.mark.parametrize(
    ("changes", "steps", "expected"),
    [
        (
            {"warmup_steps": 10, "end_lr_factor": 0.1}, 110,
            {0: 0, 5: 0.25, 10: 0.5, 60: 0.275, 110: 0.05, 500: 0.05},
        ),
        ({"schedule": "constant", "warmup_steps": 4}, 100, {0: 0, 2: 0.25, 4: 0.5, 99: 0.5}),
        (
            {"schedule": "rsqrt", "warmup_steps": 4, "cooldown_steps": 10}, 100,
            {0: 0, 2: 0.25, 4: 0.5, 16: 0.25, 64: 0.125, 95: 0.5 * (4 / 95) ** 0.5 / 2, 100: 0},
        ),
        # What PyTorch 2.13's OneCycleLR(max_lr=0.5, total_steps=11, final_div_factor=500) gave.
        (
            {"schedule": "one_cycle", "final_div_factor": 500.0}, 11,
            {0: 0.02, 1: 0.2111706, 2: 0.4801307, 3: 0.4898741, 5: 0.3630539, 8: 0.0787483},
        ),
    ],
)  # fmt: skip
def test_rates(changes, steps, expected):
    schedule = make_schedule(OptimConfig(learning_rate=0.5, **changes), steps)
    found = [float(schedule(step)) for step in expected]
    np.testing.assert_allclose(found, list(expected.values()), atol=1e-6)


def test_a_single_step_has_a_rate():
    for name in ("cosine", "one_cycle", "rsqrt", "constant"):
        assert np.isfinite(float(make_schedule(OptimConfig(schedule=name), 1)(0)))


def test_every_schedule_that_a_config_may_name_has_a_function_of_its_own():
    assert tuple(schedules.SCHEDULES) == SCHEDULES
    assert len(set(schedules.SCHEDULES.values())) == len(SCHEDULES)
    with pytest.raises(KeyError, match="typo"):
        make_schedule(OptimConfig(schedule="typo"), 10)
