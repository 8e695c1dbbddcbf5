"""The one training loop: python -m experiments.train --config=FILE --workdir=DIR

    [--distributed=auto|HOST:PORT,COUNT,INDEX] [--config.KEY=VALUE ...] [--debug]

The folder of a run holds `checkpoints/`, `metrics.jsonl`, `tensorboard/`, `tokenizer.model`, with
`config.data.log_ids` also `ids/`, and, at the end, `model/`: a model folder that `clip_jax.load`,
`rudolph_jax.load_vqgan` or `rudolph_jax.load` takes, by the config's objective. The same command
resumes a run that was stopped, with bit-equal parameters on a CPU.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
from jax.sharding import Mesh

from clip_jax.compilation_cache import enable_compilation_cache
from clip_jax.errors import InputError
from clip_jax.model_folder import CONFIG
from clip_jax.paths import as_path, is_remote, remove_tree
from clip_jax.progress import elapsed_lines
from clip_jax.tokenizer import FILE_NAME
from experiments.cli.command_line import describe_keys, parse_command_line, take_distributed
from experiments.cli.exit_status import exit_status
from experiments.config.run import TrainConfig, check
from experiments.data.background import use_background
from experiments.data.sample_ids import SampleIds
from experiments.data.source import open_split
from experiments.data.stream import batches
from experiments.data.vocabulary import run_tokenizer
from experiments.distributed.connections import connect
from experiments.distributed.lost_peers import Peers
from experiments.distributed.preemption import PreemptionHandler
from experiments.distributed.processes import Processes, fetch_to_host, initialize, run_and_shutdown
from experiments.distributed.watchdog import Watchdog
from experiments.evaluation.during_training.evaluators import make_evaluators
from experiments.objectives.objective import Pretrained
from experiments.start_checks.data import check_open_files, check_shards
from experiments.start_checks.processes import check_clocks, check_versions
from experiments.start_checks.storage import check_space
from experiments.training import partitioning
from experiments.training.loop import Loop, as_pretrained
from experiments.training.metrics import last_metrics
from experiments.training.optimizer import make_optimizer
from experiments.training.phases import Phases
from experiments.training.resume import step_to_resume
from experiments.training.run_objective import make_run_objective
from experiments.training.runners import RUNNERS
from experiments.training.state import initial_state, model_params
from experiments.training.trackers import BOARD, check_installed
from experiments.training.warm_start import initial_vocabulary, load_initial_params
from experiments.workdir.folder import hold
from experiments.workdir.storage_errors import storage_errors

CHECKPOINTS, MODEL = "checkpoints", "model"


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

    devices: the ones to use; None: all. Of several processes each calls it with the same config
    and a folder that all of them share.
    Raises InputError for a config or folder that cannot work or that another run holds,
    DivergedError for a loss that is no longer finite, StorageError for a disk that takes no more
    and for a folder that was removed or replaced, PeerLostError where another process is gone.
    After a checkpoint of the last finished step KeyboardInterrupt is passed on, and SIGTERM becomes
    Stopped.
    """
    check(config)
    # Orbax takes an eighth of a second to import, which a wrong config need not wait for.
    from experiments.training.checkpoint import Checkpoints, abstract_state, last_good

    check_installed(config.report_to)
    enable_compilation_cache()
    workdir = as_path(workdir)
    processes = Processes()
    mesh = partitioning.make_mesh(config.mesh, devices)
    check_mesh(config, mesh)
    check_versions(processes)
    check_clocks(processes)
    with (
        PreemptionHandler(processes) as preemption,
        Watchdog(processes, config.watchdog_seconds) as watchdog,
        Peers(processes) as peers,
        storage_errors(workdir, lambda: last_good(workdir / CHECKPOINTS)),
        hold(workdir, processes) as folder,
    ):
        phase = Phases(quiet=not processes.first)
        split = processes.first_then_others(
            lambda: open_split(config.data, config.data.split, config.extensions.data)
        )
        config = use_background(config, split)
        objective = make_run_objective(config, mesh)
        evaluators = processes.first_then_others(lambda: make_evaluators(config))
        check_shards(split, every=False)
        _, warning = check_open_files(split)
        if warning and processes.first:
            print(f"warning: {warning}", file=sys.stderr, flush=True)
        if processes.first:
            check_space(config, objective, workdir)
        with (
            Checkpoints(
                workdir / CHECKPOINTS, config.keep_checkpoints, config.best_metric, config.best_mode
            ) as checkpoints,
            peers.errors(),
        ):
            folder.watch(checkpoints.folder)
            first_step = step_to_resume(checkpoints, config)
            tokenizer = None
            if objective.vocabulary is not None:
                vocabulary = objective.vocabulary
                if not ((workdir / FILE_NAME).exists() or initial_vocabulary(config).vocabulary):
                    rows = min(config.data.vocabulary_sample, len(split))
                    phase(f"training a vocabulary of {vocabulary.size:,} pieces from {rows:,} rows")
                tokenizer = processes.first_then_others(
                    lambda: run_tokenizer(vocabulary, initial_vocabulary(config), split, workdir)
                )
                processes.require_equal(FILE_NAME, tokenizer.model)
                checkpoints.bind({FILE_NAME: tokenizer.model}, first_step)
            optimizer = make_optimizer(config.optim, config.steps, config.extensions)
            loop = Loop(
                config, objective, workdir, processes, preemption, watchdog, checkpoints, tokenizer,
                evaluators, first_step, mesh, folder,
            )  # fmt: skip
            connect(mesh, processes)
            with partitioning.mesh_context(mesh, config.parallel):
                phase("initial parameters")
                state, shardings = initial_state(config, objective, optimizer, mesh)
                if first_step:
                    phase(f"restoring step {first_step}")
                    state = checkpoints.restore(first_step, abstract_state(state))
                else:
                    state = load_initial_params(state, config)
                if loop.has_work:
                    if config.data.in_memory and split.has_images:
                        phase(f"rendering {len(split):,} images")
                    runner = RUNNERS[config.parallel](config, objective, optimizer, mesh, shardings)
                    stream = batches(
                        objective.examples(split, tokenizer), config.data,
                        seed=config.seed, first_step=first_step,
                        process_index=processes.index, process_count=processes.count,
                    )  # fmt: skip
                    if config.data.log_ids:
                        place = workdir, split, first_step, processes.index, processes.count
                        ids = processes.first_then_others(lambda: SampleIds(*place))
                        checkpoints.before_save.append(ids.flush)
                        stream = ids.log(stream)
                    if loop.steps_left:
                        if BOARD in config.report_to:
                            phase.note(f"to watch: tensorboard --logdir={workdir / BOARD}")
                        phase(f"compiling the step for {mesh.size} devices")
                    state = loop.run(runner, state, stream, phase.end)
                if config.final_model == "best" and (best := checkpoints.best_step()) is not None:
                    state = checkpoints.restore(best, abstract_state(state))
        preemption.nothing_to_save = True
        with elapsed_lines(f"writing {workdir / MODEL}", quiet=not processes.first):
            model = as_pretrained(objective, fetch_to_host(model_params(state)), tokenizer)
            folder.check()
            if processes.first:
                _write_model(model, workdir, config)
        processes.barrier("model")
        return Run(model, workdir / MODEL, last_metrics(workdir))


def check_mesh(config: TrainConfig, mesh: Mesh) -> None:
    """InputError unless the batch and the way to run fit the devices."""
    pieces = partitioning.batch_shards(mesh) * config.grad_accum_steps
    if config.data.batch_size % pieces:
        raise InputError(
            f"config.data.batch_size is {config.data.batch_size}; expected a multiple of {pieces}:"
            f" {partitioning.batch_shards(mesh)} shards (mesh axes data and fsdp) times "
            f"{config.grad_accum_steps} micro-batches (config.grad_accum_steps)"
        )
    if config.parallel == "pmap" and mesh.shape["data"] != mesh.size:
        raise InputError(
            f"config.mesh is {dict(mesh.shape)}; config.parallel 'pmap' has all devices on data"
        )


def _write_model(model: Pretrained, workdir: Path, config: TrainConfig) -> None:
    folder, beside = workdir / MODEL, workdir / f"{MODEL}.new"
    if is_remote(folder):  # config.json goes first and comes last: without it there is no model
        (folder / CONFIG).unlink(missing_ok=True)
        remove_tree(folder)
        model.save(folder, source="experiments.train", config=config.to_dict())
        return
    shutil.rmtree(beside, ignore_errors=True)
    model.save(beside, source="experiments.train", config=config.to_dict())
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(beside, folder)


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if {"-h", "--help"} & set(argv):
        print(f"{__doc__}\nKeys and their defaults:\n{describe_keys()}")
        return 0

    def work() -> None:
        how, rest = take_distributed(argv)
        config, workdir = parse_command_line(rest)
        initialize(how)
        folder = train(config, workdir).model_folder
        if jax.process_index() == 0:
            print(f"model: {folder}")

    return run_and_shutdown(lambda: exit_status(work, argv))


if __name__ == "__main__":
    sys.exit(main())
