"""Steps of training, with everything that happens between them."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from jax.sharding import Mesh

from clip_jax.errors import InputError
from clip_jax.tokenizer import Tokenizer
from experiments.cli.exit_status import DivergedError, Stopped
from experiments.config.run import MeshConfig, TrainConfig, flatten
from experiments.distributed.preemption import PreemptionHandler
from experiments.distributed.processes import Processes, fetch_to_host
from experiments.distributed.watchdog import Watchdog
from experiments.evaluation.during_training.evaluators import Evaluator, ShardedEvaluator
from experiments.evaluation.during_training.images import (
    DRAWINGS,
    Figure,
    figures_of,
    make_drawings,
    missing_package,
)
from experiments.evaluation.during_training.sharded_model import ShardedModel
from experiments.objectives.objective import Objective, Pretrained
from experiments.training.interrupts import HeldInterrupts
from experiments.training.metrics import MetricsWriter, NullMetricsWriter, Progress, read_metrics
from experiments.training.optimizer import make_schedule
from experiments.training.partitioning import make_mesh
from experiments.training.runners import JitRunner, PmapRunner
from experiments.training.state import State, all_finite, model_params
from experiments.training.step import SIGNAL
from experiments.training.step_times import StepTimes
from experiments.workdir.folder import RunFolder

if TYPE_CHECKING:
    from experiments.training.checkpoint import Checkpoints


class StepResult(NamedTuple):
    """A step and what it made, as one value: no interrupt leaves one without the other.

    number: of steps taken so far. metrics: (number, metrics) of the last two steps of this run.
    """

    number: int
    state: State
    metrics: tuple[tuple[int, Mapping[str, jax.Array]], ...] = ()


class Loop:
    """Run from the first step that is not taken yet to the last."""

    def __init__(
        self,
        config: TrainConfig,
        objective: Objective,
        workdir: Path,
        processes: Processes,
        preemption: PreemptionHandler,
        watchdog: Watchdog,
        checkpoints: Checkpoints,
        tokenizer: Tokenizer | None,
        evaluators: Mapping[str, Evaluator],
        first_step: int,
        mesh: Mesh,
        folder: RunFolder,
    ) -> None:
        self.config, self.objective, self.workdir = config, objective, workdir
        self.processes, self.preemption, self.watchdog = processes, preemption, watchdog
        self.checkpoints = checkpoints
        self.tokenizer, self.evaluators = tokenizer, evaluators
        self.schedule = make_schedule(config.optim, config.steps, config.extensions)
        self.first_step, self.skipped_in_a_row = first_step, 0
        self.recorded, self.step_times = first_step, StepTimes()
        self.evaluated: tuple[int, Mapping[str, float]] = (first_step, {})
        self.mesh, self.folder = mesh, folder
        self.not_evaluated = processes.broadcast_from_first(self._find_not_evaluated, Stopped)
        self.unscored = processes.broadcast_from_first(self._is_unscored, Stopped)
        scores = processes.broadcast_from_first(self._read_scores, Stopped)
        self.scores = [(step, value) for step, value in scores]
        missing = processes.broadcast_from_first(partial(missing_package, config), Stopped)
        if missing and processes.first:
            print(missing, file=sys.stderr, flush=True)
        self.draws_figures = bool(config.evaluation_images) and not missing
        self.drawings = make_drawings(config) if self.draws_figures else None
        self.steps_left = first_step < config.steps and not self._is_out_of_patience()
        self.has_work = self.steps_left or bool(self.not_evaluated) or self.unscored

    def run(
        self,
        runner: JitRunner | PmapRunner,
        state: State,
        stream: Any,
        on_first_step: Callable[[], None] = lambda: None,
    ) -> State:
        """Takes the steps that are left. on_first_step: called when the first one is compiled."""
        config, first = self.config, self.processes.first
        self.writer = self._make_writer() if first else NullMetricsWriter()
        self.checkpoints.before_save.append(self.writer.flush)
        self.progress = Progress(
            self.first_step, config.steps, config.data.batch_size, quiet=not first
        )
        self.current = StepResult(self.first_step, state)
        if self.first_step:
            self.progress.log(f"resuming at step {self.first_step}")
        try:
            if self.not_evaluated:
                self._evaluate(self.first_step, state, self.not_evaluated)
            if self.unscored:
                self.processes.first_then_others(self._add_metrics)
            last = config.steps if self.steps_left else self.first_step
            for number in range(self.first_step + 1, last + 1):
                if self.preemption.should_stop():
                    raise self.preemption.stopped()
                with self.preemption.interruptible():
                    batch = next(stream)
                self.watchdog.heartbeat(number)
                self._take(runner, runner.shard_batch(batch, self._signal()))
                if number == self.first_step + 1:
                    on_first_step()
                self.preemption.nothing_to_save = False
                # The step before is looked at while this one runs.
                self._record(self.current.metrics[:-1])
                self.checkpoints.look()
                self.folder.look()
                evaluate = bool(self.evaluators) and self._due(config.evaluate_every, number)
                save = self._due(config.checkpoint_every, number)
                if evaluate or save:
                    self._record(self.current.metrics)
                if evaluate:
                    self._evaluate(number, self.current.state, list(self.evaluators))
                ends = evaluate and number < config.steps and self._is_out_of_patience()
                if save or ends:
                    self._save()
                if evaluate or save:
                    self.step_times.pause()
                if ends:
                    self.progress.log(f"step {number}: stopped early; {self._describe_best()}")
                    break
        except (KeyboardInterrupt, Stopped) as stop:
            # With several processes an interrupt that is one's own must not wait for the others.
            if self.processes.count > 1 and not isinstance(stop, Stopped):
                raise
            self._leave()
            raise
        finally:
            self.progress.close()
            self.writer.close()
        self.watchdog.heartbeat(config.steps + 1)
        return self.current.state

    def _take(self, runner: JitRunner | PmapRunner, batch: Any) -> None:
        """Takes a step, which consumes the state before it: from then on only the new one counts.

        The first step, with its compilation, can be interrupted: before it there is nothing to
        lose but what the last checkpoint has. No process begins it before all have compiled it:
        what joins them may not wait for as long as some compile.
        """
        number, state, metrics = self.current
        first = number == self.first_step
        if first:
            runner.compile(state, batch)
            self.processes.barrier("compiled")
        with contextlib.nullcontext() if first else HeldInterrupts():
            after, values = runner.step(state, batch)
            self.current = StepResult(number + 1, after, (*metrics[-1:], (number + 1, values)))

    def _signal(self) -> int | None:
        """Returns what a step shares of signals; None with one process, whose own it reads."""
        return self.preemption.signal_to_share() if self.processes.count > 1 else None

    def _leave(self) -> None:
        """Saves the last step that was taken, under whose number its state stands."""
        self._record(self.current.metrics)
        number = self.current.number
        if number > self.first_step and self.checkpoints.latest_step() != number:
            self._save()
        self.checkpoints.wait()
        last = f"step {number} is saved" if number else "before a step was done"
        self.progress.log(f"interrupted; {last}, the same command resumes it")

    def _record(self, taken: Sequence[tuple[int, Mapping[str, jax.Array]]]) -> None:
        """Checks, shows and writes the metrics of steps, of each one once."""
        for number, metrics in taken:
            if number > self.recorded:
                self._record_step(number, metrics)

    def _record_step(self, number: int, metrics: Mapping[str, jax.Array]) -> None:
        metrics = dict(metrics)
        self.preemption.agree(int(metrics.pop(SIGNAL, 0)))
        loss, grad_norm = float(metrics["loss"]), float(metrics["grad_norm"])
        good = math.isfinite(loss) and math.isfinite(grad_norm)
        skipped = 0 if good else self.skipped_in_a_row + 1
        if skipped > self.config.optim.skip_nonfinite:
            raise self._diverged(number, f"loss is {loss}, gradient norm {grad_norm}")
        values: dict[str, float] = {}
        if number % self.config.log_every == 0 or number == self.config.steps:
            values = {f"train/{key}": float(value) for key, value in metrics.items()}
            values["train/learning_rate"] = float(self.schedule(number - 1))
            self.folder.check()
        with HeldInterrupts():
            self.recorded, self.skipped_in_a_row = number, skipped
            if not good:
                self.progress.log(
                    f"step {number}: loss is {loss}, gradient norm {grad_norm}; it is left out, "
                    f"{int(metrics['skipped'])} so far"
                )
            if jump := self.step_times.done(number):
                self.progress.log(jump)
            self.progress.update(number, loss)
            if values:
                self.writer.write(number, values)

    def _due(self, every: int, number: int) -> bool:
        return number == self.config.steps or (every > 0 and number % every == 0)

    def _save(self) -> None:
        number, state, _ = self.current
        # A step's loss is of the parameters before it: what it made of them is looked at here.
        if not jax.block_until_ready(all_finite(state["params"])):
            raise self._diverged(number, "parameters are not finite")
        evaluated, values = self.evaluated
        self.folder.check()
        self.checkpoints.save(
            number, state, self.config.to_dict(), values if evaluated == number else {}
        )

    def _diverged(self, number: int, finding: str) -> DivergedError:
        good = self.checkpoints.latest_step()
        where = "there is none" if good is None else str(self.checkpoints.folder / str(good))
        return DivergedError(
            f"step {number}: {finding}; last good checkpoint: {where}; try a lower "
            "optim.learning_rate, longer warm-up or optim.clip_norm"
        )

    def _is_unscored(self) -> bool:
        """Returns whether the checkpoint resumed from lacks a `best_metric` that it should have."""
        due = self._due(self.config.evaluate_every, self.first_step)
        wanted = self.first_step and self.config.best_metric and due
        return bool(wanted) and not self.checkpoints.has_metric(self.first_step)

    def _make_writer(self) -> MetricsWriter:
        fields = flatten(self.config.to_dict())
        return MetricsWriter(self.workdir, self.first_step, fields, self.config.report_to)

    def _add_metrics(self) -> None:
        """Completes the checkpoint that the run resumes from, if it was saved in an evaluation."""
        self.checkpoints.add_metrics(self.first_step, self._known_metrics())

    def _known_metrics(self) -> dict[str, float]:
        """Returns the metrics row of the step that the run resumes from."""
        known: dict[str, float] = {}
        for row in read_metrics(self.workdir):
            if row["step"] == self.first_step:
                known |= row
        return known

    def _find_not_evaluated(self) -> list[str]:
        """The evaluators that an interrupted run still owed its last step."""
        if not self.first_step or not self._due(self.config.evaluate_every, self.first_step):
            return []
        known = {key.partition("/")[0] for key in self._known_metrics()}
        return [name for name in self.evaluators if name not in known]

    def _evaluate(self, number: int, state: State, names: list[str]) -> None:
        """Writes the values of all the evaluators named, and has them on every process."""
        self.folder.check()
        params = model_params(state)
        sharded = [name for name in names if isinstance(self.evaluators[name], ShardedEvaluator)]
        values: dict[str, float] = {}
        if sharded:
            values |= self._evaluate_sharded(number, params, sharded)
        if alone := [name for name in names if name not in sharded]:
            values |= self._evaluate_alone(number, params, alone)
        if self.drawings is not None:
            self._draw_samples(number, params)
        best = self.config.best_metric
        if best and best.partition("/")[0] in names and best not in values:
            raise InputError(f"config.best_metric is {best!r}; expected one of {', '.join(values)}")
        self.evaluated = (number, values)
        if best in values:
            self.scores.append((number, values[best]))

    def _evaluate_sharded(self, number: int, params: Any, names: list[str]) -> dict[str, float]:
        """All processes evaluate, with the parameters where they are."""
        found: dict[str, float] = {}
        model = ShardedModel(
            self.objective.model_params(params), self.config.model, self.config.compute,
            self.tokenizer, self.mesh, self.objective.batch_transform,
            self.preemption.signal_to_share,
        )  # fmt: skip
        # With several processes a signal comes with the rows: none leaves the others waiting.
        with self.preemption.interruptible():
            for name in names:
                measured = self.evaluators[name](model)
                # The first's count: another kind of processor may differ in the last bit.
                agreed = self.processes.broadcast_from_first(partial(dict, measured), Stopped)
                found |= self._write(number, name, agreed)
                self._write_figures(number, name, figures_of(measured))
        return found

    def _evaluate_alone(self, number: int, params: Any, names: list[str]) -> dict[str, float]:
        """The first process evaluates on a device of its own; the others wait for its values."""
        whole = fetch_to_host(params)

        def evaluate() -> dict[str, float]:
            found: dict[str, float] = {}
            with self.preemption.interruptible(alone=False), self._alone():
                model = as_pretrained(self.objective, whole, self.tokenizer)
                for name in names:
                    measured = self.evaluators[name](model)
                    found |= self._write(number, name, measured)
                    self._write_figures(number, name, figures_of(measured))
            return found

        return self.processes.broadcast_from_first(evaluate, Stopped)

    def _draw_samples(self, number: int, params: Any) -> None:
        """The first process draws held-out captions on a device of its own; the others wait."""
        drawings, whole = self.drawings, fetch_to_host(params)
        assert drawings is not None

        def draw() -> bool:
            with self.preemption.interruptible(alone=False), self._alone():
                try:
                    model = as_pretrained(self.objective, whole, self.tokenizer)
                    self._write_figures(number, "", {DRAWINGS: partial(drawings, model)})
                except jax.errors.JaxRuntimeError as error:
                    if "RESOURCE_EXHAUSTED" not in str(error):
                        raise
                    self.progress.log(
                        f"step {number}: the device has no memory left to draw samples; this run "
                        "draws no more (config.evaluation_images=0 does not try)"
                    )
                    return False
            return True

        if not self.processes.broadcast_from_first(draw, Stopped):
            self.drawings = None

    def _write_figures(self, number: int, name: str, figures: Mapping[str, Figure]) -> None:
        """Draws, writes and shows figures of an evaluation; the first process does."""
        if not self.draws_figures or not self.processes.first:
            return
        for key, draw in figures.items():
            file = self.writer.write_image(number, f"{name}/{key}" if name else key, draw())
            self.progress.log(f"step {number}: {file}")

    def _write(self, number: int, name: str, values: Mapping[str, float]) -> dict[str, float]:
        """Writes and shows an evaluator's values, under its name."""
        named = {f"{name}/{key}": value for key, value in values.items()}
        self.writer.write(number, named)
        listed = "  ".join(f"{key} {value:.4f}" for key, value in named.items())
        self.progress.log(f"step {number}: {listed}")
        return named

    def _read_scores(self) -> list[tuple[int, float]]:
        """Returns (step, best_metric) of the evaluations up to the step resumed from."""
        name = self.config.best_metric
        rows = read_metrics(self.workdir) if name and self.first_step else []
        return [
            (row["step"], row[name])
            for row in rows
            if name in row and row["step"] <= self.first_step
        ]

    def _best_index(self) -> int:
        """Returns the index of the best score, of equal ones the first; NaN is never the best."""
        sign = 1 if self.config.best_mode == "highest" else -1
        ranked = [-math.inf if math.isnan(value) else sign * value for _, value in self.scores]
        return ranked.index(max(ranked))

    def _is_out_of_patience(self) -> bool:
        """Returns whether the last `early_stop` evaluations were no better than one before."""
        patience = self.config.early_stop
        return bool(patience and self.scores) and (
            len(self.scores) - 1 - self._best_index() >= patience
        )

    def _describe_best(self) -> str:
        step, value = self.scores[self._best_index()]
        return f"best {self.config.best_metric} {value:.4f} at step {step}"

    def _alone(self) -> contextlib.AbstractContextManager[Any]:
        """Sets a mesh of one own device, so that functions need none of another process."""
        own = [d for d in self.mesh.devices.flat if d.process_index == self.processes.index]
        return jax.set_mesh(make_mesh(MeshConfig(), own[:1]))


def as_pretrained(objective: Objective, params: Any, tokenizer: Tokenizer | None) -> Pretrained:
    """The model that users load, of parameters on this host."""
    return objective.pretrained(jax.device_put(params), tokenizer)
