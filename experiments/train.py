"""The one training loop: python -m experiments.train --config=FILE --workdir=DIR

The folder of a run holds `checkpoints/`, `metrics.jsonl`, `tensorboard/`, `tokenizer.model` and,
at the end, `model/`: a model folder that `clip_jax.load`, `rudolph_jax.load_vqgan` or
`rudolph_jax.load` takes, by the config's objective. The same command resumes a run that was
stopped, with bit-equal parameters on a CPU.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from clip_jax.errors import InputError
from clip_jax.tokenizer import Tokenizer
from experiments import parallel
from experiments.checkpoint import Checkpoints, abstract_state
from experiments.command import DivergedError, exit_status
from experiments.command_line import describe_keys, parse_command_line
from experiments.config import TrainConfig, check
from experiments.data.source import open_split
from experiments.data.stream import batches
from experiments.data.vocabulary import run_tokenizer
from experiments.evaluation.evaluators import Evaluator, make_evaluators
from experiments.lora import with_lora
from experiments.metrics import MetricsWriter, Progress, last_metrics
from experiments.objectives import make_objective
from experiments.objectives.objective import Objective, Pretrained
from experiments.optim import make_optimizer, make_schedule
from experiments.resume import step_to_resume
from experiments.runners import RUNNERS, JitRunner, PmapRunner
from experiments.state import State, all_finite, initial_state, model_params


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run: its last parameters in memory, its model folder, its last metrics."""

    model: Pretrained
    model_folder: Path
    metrics: Mapping[str, float]


def train(
    config: TrainConfig, workdir: str | Path, devices: Sequence[jax.Device] | None = None
) -> Run:
    """Trains from scratch, or from the newest complete checkpoint in `workdir`.

    devices: the ones to use; None: all.
    Raises InputError for a config or folder that cannot work, DivergedError for a loss that is no
    longer finite. KeyboardInterrupt is passed on after a checkpoint of the last finished step.
    """
    check(config)
    workdir = Path(workdir)
    mesh = parallel.make_mesh(config.mesh, devices)
    check_mesh(config, mesh)
    objective = make_objective(config, mesh)
    if config.optim.lora.rank:
        objective = with_lora(objective, config.optim.lora)
    evaluators = make_evaluators(config)
    split = open_split(config.data, config.data.split)
    with Checkpoints(workdir / "checkpoints", config.keep_checkpoints) as checkpoints:
        first_step = step_to_resume(checkpoints, config)
        tokenizer = None
        if objective.vocabulary is not None:
            tokenizer = run_tokenizer(objective.vocabulary, config.data, split, workdir)
        optimizer = make_optimizer(config.optim, config.steps)
        with parallel.mesh_context(mesh, config.parallel):
            state, shardings = initial_state(config, objective, optimizer, mesh)
            if first_step:
                state = checkpoints.restore(first_step, abstract_state(state))
            if first_step < config.steps:
                runner = RUNNERS[config.parallel](config, objective, optimizer, mesh, shardings)
                stream = batches(
                    objective.examples(split, tokenizer), config.data,
                    seed=config.seed, first_step=first_step,
                    process_index=jax.process_index(), process_count=jax.process_count(),
                )  # fmt: skip
                loop = _Loop(
                    config, objective, workdir, checkpoints, tokenizer, evaluators, first_step
                )
                state = loop.run(runner, state, stream)
    model = as_pretrained(objective, state, tokenizer)
    return Run(model, _write_model(model, workdir, config), last_metrics(workdir))


def check_mesh(config: TrainConfig, mesh: Mesh) -> None:
    """InputError unless the batch and the way to run fit the devices."""
    pieces = parallel.batch_shards(mesh) * config.accumulate
    if config.data.batch_size % pieces:
        raise InputError(
            f"config.data.batch_size is {config.data.batch_size}; expected a multiple of {pieces}:"
            f" {parallel.batch_shards(mesh)} shards (mesh axes data and fsdp) times "
            f"{config.accumulate} micro-batches (config.accumulate)"
        )
    if config.parallel == "pmap" and mesh.shape["data"] != mesh.size:
        raise InputError(
            f"config.mesh is {dict(mesh.shape)}; config.parallel 'pmap' has all devices on data"
        )


class _Loop:
    """Steps with everything that happens between them."""

    def __init__(
        self,
        config: TrainConfig,
        objective: Objective,
        workdir: Path,
        checkpoints: Checkpoints,
        tokenizer: Tokenizer | None,
        evaluators: Mapping[str, Evaluator],
        first_step: int,
    ) -> None:
        self.config, self.objective = config, objective
        self.checkpoints = checkpoints
        self.tokenizer, self.evaluators = tokenizer, evaluators
        self.schedule = make_schedule(config.optim, config.steps)
        self.first_step, self.skipped_in_a_row = first_step, 0
        self.writer = MetricsWriter(workdir, first_step)
        self.progress = Progress(first_step, config.steps, config.data.batch_size)

    def run(self, runner: JitRunner | PmapRunner, state: State, stream: Any) -> State:
        config = self.config
        pending: tuple[int, Any] | None = None
        done = self.first_step
        if done:
            self.progress.say(f"resuming at step {done}")
        try:
            for number in range(self.first_step + 1, config.steps + 1):
                state, metrics = runner.step(state, runner.put(next(stream)))
                # The step before is looked at while this one runs.
                if pending is not None:
                    self._record(*pending)
                pending, done = (number, metrics), number
                evaluate = bool(self.evaluators) and self._due(config.evaluate_every, number)
                save = self._due(config.checkpoint_every, number)
                if evaluate or save:
                    self._record(*pending)
                    pending = None
                # In this order a step that is saved has been evaluated, whatever interrupts.
                if evaluate:
                    self._evaluate(number, state)
                if save:
                    self._save(number, state)
        except KeyboardInterrupt:
            if pending is not None:
                self._record(*pending)
            if done > self.first_step and self.checkpoints.latest_step() != done:
                self._save(done, state)
            self.progress.say(f"interrupted; step {done} is saved, the same command resumes it")
            raise
        finally:
            self.progress.close()
            self.writer.close()
        return state

    def _record(self, number: int, metrics: Mapping[str, jax.Array]) -> None:
        loss, grad_norm = float(metrics["loss"]), float(metrics["grad_norm"])
        good = math.isfinite(loss) and math.isfinite(grad_norm)
        self.skipped_in_a_row = 0 if good else self.skipped_in_a_row + 1
        if self.skipped_in_a_row > self.config.optim.skip_nonfinite:
            raise self._diverged(number, f"loss is {loss}, gradient norm {grad_norm}")
        if not good:
            self.progress.say(
                f"step {number}: loss is {loss}, gradient norm {grad_norm}; it is left out, "
                f"{int(metrics['skipped'])} so far"
            )
        self.progress.update(number, loss)
        if number % self.config.log_every == 0 or number == self.config.steps:
            values = {f"train/{key}": float(value) for key, value in metrics.items()}
            values["train/learning_rate"] = float(self.schedule(number - 1))
            self.writer.write(number, values)

    def _due(self, every: int, number: int) -> bool:
        return number == self.config.steps or (every > 0 and number % every == 0)

    def _save(self, number: int, state: State) -> None:
        # A step's loss is of the parameters before it: what it made of them is looked at here.
        if not all_finite(state["params"]):
            raise self._diverged(number, "parameters are not finite")
        self.checkpoints.save(number, state, self.config.to_dict())

    def _diverged(self, number: int, finding: str) -> DivergedError:
        good = self.checkpoints.latest_step()
        where = "there is none" if good is None else str(self.checkpoints.folder / str(good))
        return DivergedError(
            f"step {number}: {finding}; last good checkpoint: {where}; try a lower "
            "optim.learning_rate, longer warm-up or optim.clip_norm"
        )

    def _evaluate(self, number: int, state: State) -> None:
        model = as_pretrained(self.objective, state, self.tokenizer)
        for name, evaluate in self.evaluators.items():
            values = {f"{name}/{key}": value for key, value in evaluate(model).items()}
            self.writer.write(number, values)
            listed = "  ".join(f"{key} {value:.4f}" for key, value in values.items())
            self.progress.say(f"step {number}: {listed}")


def as_pretrained(objective: Objective, state: State, tokenizer: Tokenizer | None) -> Pretrained:
    """A run's present parameters as the model that users load."""
    params = jax.tree.map(jax.numpy.asarray, jax.device_get(model_params(state)))
    return objective.pretrained(params, tokenizer)


def _write_model(model: Pretrained, workdir: Path, config: TrainConfig) -> Path:
    folder, beside = workdir / "model", workdir / "model.new"
    shutil.rmtree(beside, ignore_errors=True)
    model.save(beside, source="experiments.train", config=config.to_dict())
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(beside, folder)
    return folder


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(f"{__doc__}\nKeys and their defaults:\n{describe_keys()}")
        return 0

    def work() -> None:
        config, workdir = parse_command_line(argv)
        print(f"model: {train(config, workdir).model_folder}")

    return exit_status(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
