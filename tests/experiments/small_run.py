"""A linear model trained by the loop, step and checkpoints of every run, in milliseconds a step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from clip_jax.paths import as_path
from experiments.config.data import DataConfig
from experiments.config.run import OptimConfig, TrainConfig
from experiments.distributed.preemption import PreemptionHandler
from experiments.distributed.processes import Processes
from experiments.distributed.watchdog import Watchdog
from experiments.objectives.objective import Objective
from experiments.training import partitioning
from experiments.training.checkpoint import Checkpoints, abstract_state
from experiments.training.loop import Loop
from experiments.training.optimizer import make_optimizer
from experiments.training.resume import step_to_resume
from experiments.training.runners import RUNNERS
from experiments.training.state import initial_state
from experiments.workdir.folder import RunFolder

BATCH, WIDTH = 8, 4
CONFIG = TrainConfig(
    data=DataConfig(batch_size=BATCH),
    optim=OptimConfig(learning_rate=0.1, warmup_steps=0, ema=0.5),
    steps=5,
    log_every=1,
    checkpoint_every=2,
)


def squared_error(params, batch, now):
    return jnp.mean((batch["x"] @ params["w"] - 1) ** 2), {}


def rows_of(step):
    """{"x": float32[BATCH, WIDTH]} of the batch that makes a step."""
    rng = np.random.default_rng(step)
    return {"x": rng.standard_normal((BATCH, WIDTH), np.float32)}


class SmallRun:
    """run(workdir) -> the last state on the host; compiled once for all folders."""

    def __init__(self, loss=squared_error, rows=rows_of, evaluators=None, **changes):
        """changes: of CONFIG. evaluators: name -> parameters -> {"name": value}."""
        self.evaluators = evaluators or {}
        self.config = dataclasses.replace(CONFIG, evaluators=tuple(self.evaluators), **changes)
        self.rows = rows
        self.mesh = partitioning.make_mesh(self.config.mesh, jax.devices()[:1])
        self.objective = Objective(
            abstract_params={"w": jax.ShapeDtypeStruct((WIDTH,), jnp.float32)},
            init=lambda rng: {"w": jax.random.normal(rng, (WIDTH,))},
            loss=loss,
            sharding_rules=(("w", (None,)),),
            examples=None,
            pretrained=lambda params, tokenizer: params,
        )
        self.optimizer = make_optimizer(self.config.optim, self.config.steps)
        with jax.set_mesh(self.mesh):
            self.fresh, self.shardings = initial_state(
                self.config, self.objective, self.optimizer, self.mesh
            )
            self.runner = RUNNERS["jit"](
                self.config, self.objective, self.optimizer, self.mesh, self.shardings
            )

    def start(self):
        """A fresh state."""
        return jax.tree.map(jnp.copy, self.fresh)

    def __call__(self, workdir):
        config, workdir, hosts = self.config, as_path(workdir), Processes()
        with (
            PreemptionHandler(hosts) as stopping,
            Watchdog(hosts, 0.0) as watchdog,
            Checkpoints(
                workdir / "checkpoints", config.keep_checkpoints, config.best_metric
            ) as checkpoints,
        ):
            first = step_to_resume(checkpoints, config)
            folder = RunFolder(workdir, None)
            loop = Loop(
                config, self.objective, workdir, hosts, stopping, watchdog, checkpoints, None,
                self.evaluators, first, self.mesh, folder,
            )  # fmt: skip
            with jax.set_mesh(self.mesh):
                state = self.start()
                if first:
                    state = checkpoints.restore(first, abstract_state(state))
                if loop.has_work:
                    stream = map(self.rows, range(first + 1, config.steps + 1))
                    state = loop.run(self.runner, state, stream)
            folder.close()
        return on_host(state)


def on_host(state):
    """numpy arrays of a state, the random key as its data."""
    return jax.device_get({**state, "rng": jax.random.key_data(state["rng"])})


def same(a, b):
    """Returns whether two trees have the same bits."""
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in leaves)
