"""The table of all commands of the pages, and the way in which the tests run each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """Executed as printed, in a folder with what it reads.

    needs: names of `data_pieces.py` and `model_pieces.py`, PLACE=PIECE where the page calls a piece
        otherwise.
    shorter: options behind the printed ones that make it short, and nothing else.
    files: that it must have written. status: its exit status. variables: of the shell.
    slow: whether `make test` only parses it.
    """

    needs: str = ""
    shorter: str = ""
    files: str = ""
    status: int = 0
    variables: tuple[tuple[str, str], ...] = ()
    hub: bool = False
    slow: bool = False


@dataclass(frozen=True)
class Parse:
    """Read by the command's own parser, and no more. why: what running it would take."""

    why: str
    placeholders: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Help:
    """A name that the page explains: its --help must know it."""


@dataclass(frozen=True)
class NotOurs:
    """A command of another program. why: what it is."""

    why: str


FILE = (("FILE", "experiments/configs/digits.py"), ("DIR", "dir"))
LAUNCHER = "a launcher of several hosts"
ARRAY = "Slurm; tests/experiments/test_prepare_parts.py runs parts as processes"
HOURS = "hours of benchmarks; tests/benchmarks runs each in small"
LIBTPU = "needs libtpu, and minutes; tests/experiments/test_plan.py compiles for CPU devices"
BOTH = "models/rudolph models/vqgan"
QUICKSTART = "runs/quickstart/rudolph/model runs/quickstart/vqgan/model"
SHORT_DRAW = "--candidates=2 --count=2"
SHORT_TRAIN = "--config.steps=1 --config.optim.warmup_steps=0 --config.data.batch_size=8 "
SHORT_TRAIN += "--config.data.augment.variants=1"
SMALL = "--config.model.vision.layers=1 --config.model.vision.width=16 --config.model.text.layers=1"
SMALL += " --config.model.text.width=16 --config.compute.unroll=1"

HOW: dict[str, Run | Parse | Help | NotOurs] = {
    # ruCLIP
    'python -m clip_jax search "кошка на подоконнике" photos --model=models/ruclip':
        Run("photos models/ruclip"),
    'python -m clip_jax search "кошка на подоконнике" photos --model=models/ruclip --count=5':
        Run("photos models/ruclip"),
    'python -m clip_jax search "рукописная цифра семь" photos '
    "--model=runs/quickstart/ruclip/model": Run("photos runs/quickstart/ruclip/model"),
    'python -m clip_jax search "рукописная цифра семь" photos --model=$model':
        Run("photos models/ruclip", variables=(("model", "models/ruclip"),)),
    "python -m clip_jax index photos --model=models/ruclip":
        Run("photos models/ruclip", files="photos.index/catalog.sqlite"),
    'python -m clip_jax search "кошка" photos.index --model=models/ruclip':
        Run("photos.index models/ruclip"),
    "python -m clip_jax export photos.index embeddings":
        Run("photos.index", files="embeddings/part-00000.parquet"),
    "python -m clip_jax export photos.index retrieval --format=clip-retrieval":
        Run("photos.index", files="retrieval/img_emb/img_emb_0.npy"),
    "python -m clip_jax score pairs --model=models/ruclip --min=0.25 --out=scored":
        Run("pairs=tars models/ruclip", files="scored/rows/00001-00000.parquet"),
    "python -m clip_jax score photos --captions=captions --model=models/ruclip --min=0.25 "
    "--out=captioned":
        Run("photos captions models/ruclip", files="captioned/rows/00000-00000.parquet"),
    "python -m clip_jax score gs://BUCKET/pairs --model=gs://BUCKET/models/ruclip --min=0.25 "
    "--out=gs://BUCKET/scored --dtype=bfloat16 --batch-size=128 --part=$K/64":
        Parse("a bucket; tests/experiments/test_buckets.py has one", (("$K", "0"),)),
    # RUDOLPH
    "python -m rudolph_jax draw --prompts=prompts.txt --out=drawings --model=models/rudolph "
    "--vqgan=models/vqgan":
        Run(f"prompts.txt {BOTH}", SHORT_DRAW, "drawings/rows/00000-00000.parquet"),
    "python -m rudolph_jax caption photos --out=captions --model=models/rudolph "
    "--vqgan=models/vqgan --candidates=4 --count=1":
        Run(f"photos {BOTH}", files="captions/rows/00000-00000.parquet"),
    "python -m rudolph_jax classify photos --classes=кошка,собака,дом --out=classes "
    "--model=models/rudolph --vqgan=models/vqgan":
        Run(f"photos {BOTH}", files="classes/rows/00000-00000.parquet"),
    'python -m rudolph_jax draw "красный круг" --model=models/rudolph --vqgan=models/vqgan '
    "--out=круги": Run(BOTH, SHORT_DRAW, "круги/01.png круги/sheet.png"),
    'python -m rudolph_jax draw "рукописная цифра семь" --model=runs/quickstart/rudolph/model '
    "--vqgan=runs/quickstart/vqgan/model --out=drawings":
        Run(QUICKSTART, SHORT_DRAW, "drawings/01.png drawings/sheet.png"),
    'python -m rudolph_jax draw "красный круг" --model=$(python -m converters pretrained '
    "rudolph-350M) --vqgan=$(python -m converters pretrained vqgan-gumbelf8)":
        Run("", SHORT_DRAW, "drawings/01.png", hub=True),
    'python -m rudolph_jax draw "красный круг" --model=models/rudolph --vqgan=models/vqgan '
    "--upscale=4 --upscaler=models/x4 --out=круги":
        Run(f"models/x4 {BOTH}", SHORT_DRAW, "круги/01.png круги/sheet.png"),
    "python -m rudolph_jax upscale photo.jpg --model=models/x4 --out=large":
        Run("photo.jpg models/x4", files="large/photo.png"),
    "python -m rudolph_jax app --model=models/rudolph --vqgan=models/vqgan --upscaler=models/x4":
        Run(f"models/x4 {BOTH}"),
    "python -m rudolph_jax caption photo.jpg --model=models/rudolph --vqgan=models/vqgan --json":
        Run(f"photo.jpg {BOTH}", "--candidates=2 --count=1"),
    'python -m rudolph_jax answer "какой лес?" --context="лес красный" --about=text '
    "--model=runs/sberquad/model": Run("runs/sberquad/model", "--candidates=2"),
    "python -m rudolph_jax app --model=models/rudolph --vqgan=models/vqgan --ruclip=models/ruclip "
    "--images=photos": Run(f"photos models/ruclip {BOTH}"),
    "python -m rudolph_jax app --model=runs/quickstart/rudolph/model "
    "--vqgan=runs/quickstart/vqgan/model --ruclip=runs/quickstart/ruclip/model --images=photos":
        Run(f"photos runs/quickstart/ruclip/model {QUICKSTART}"),
    "python -m rudolph_jax doctor": Run(),
    # Conversion
    "python -m converters ruclip FOLDER models/ruclip":
        Run("FOLDER=ruclip_files", files="models/ruclip/report.json"),
    "python -m converters ruclip FOLDER models/ruclip-vit-base-patch16-384":
        Run("FOLDER=ruclip_files", files="models/ruclip-vit-base-patch16-384/report.json"),
    "python -m converters ruclip FOLDER models/ruclip --entry=model_ema":
        Run("FOLDER=training_checkpoint", files="models/ruclip/report.json"),
    "python -m converters ruclip FOLDER models/ruclip --prefix=student.":
        Run("FOLDER=distilled_checkpoint", files="models/ruclip/report.json"),
    "python -m converters ruclip-small FOLDER models/small":
        Run("FOLDER=ruclip_small_files", files="models/small/report.json"),
    "python -m converters ruclip-small FOLDER models/ruclip-small":
        Run("FOLDER=ruclip_small_files", files="models/ruclip-small/report.json"),
    "python -m converters openai-clip ViT-B-16.pt models/clip":
        Run("ViT-B-16.pt", files="models/clip/report.json"),
    "python -m converters openai-clip ViT-B-16.pt models/clip-b16 "
    "--vocabulary=bpe_simple_vocab_16e6.txt.gz":
        Run(".=openai_folder", files="models/clip-b16/report.json"),
    "python -m converters openai-clip weights.pt models/clip --activation=gelu":
        Run("weights.pt", files="models/clip/report.json"),
    "python -m converters hf-clip FOLDER models/hf":
        Run("FOLDER=hf_files", files="models/hf/report.json"),
    "python -m converters hf-clip FOLDER models/clip-b16":
        Run("FOLDER=hf_files", files="models/clip-b16/report.json"),
    "python -m converters rudolph FOLDER models/rudolph":
        Run("FOLDER=rudolph_files", files="models/rudolph/report.json"),
    "python -m converters vqgan vqgan.gumbelf8-sber.model.ckpt models/vqgan":
        Run("vqgan.gumbelf8-sber.model.ckpt", files="models/vqgan/report.json"),
    "python -m converters real-esrgan RealESRGAN_x4.pth models/x4":
        Run("RealESRGAN_x4.pth", files="models/x4/report.json"),
    "python -m converters rudalle FOLDER models/malevich":
        Run("FOLDER=rudalle_files", files="models/malevich/report.json"),
    "python -m converters youtokentome bpe.model models/tokenizer":
        Run("bpe.model", files="models/tokenizer/tokenizer.model"),
    "python -m converters export models/ruclip FOLDER":
        Run("models/ruclip", files="FOLDER/pytorch_model.bin FOLDER/bpe.model"),
    "python -m converters jax-export models/ruclip FOLDER":
        Run("models/ruclip", files="FOLDER/signature.json"),
    "python -m converters jax-export models/ruclip exported/ruclip":
        Run("models/ruclip",
            files="exported/ruclip/signature.json exported/ruclip/params.safetensors"),
    "python -m converters verify models/ruclip": Run("models/ruclip"),
    "python -m converters verify FOLDER": Run("FOLDER=models/ruclip"),
    "python -m converters pretrained ruclip-vit-base-patch32-384": Run(hub=True),
    "python -m converters pretrained NAME": Parse("a placeholder for a name"),
    "python -m converters pretrained --help": Run(),
    "python -m converters push-to-hub runs/mine/model me/my-clip": Run("runs/mine/model", hub=True),
    "python -m converters push-to-hub runs/mine/model me/my-clip --licence=apache-2.0":
        Run("runs/mine/model", hub=True),
    "python -m converters push-to-hub runs/mine/model me/my-clip --licence=apache-2.0 "
    "--evaluation=digits.json": Run("runs/mine/model digits.json", hub=True),
    "model=$(python -m converters pretrained me/my-clip)": Run(hub=True),
    # Data
    "python -m experiments.prepare SOURCE OUT": Run("SOURCE", files="OUT/dataset_info.json"),
    "python -m experiments.prepare scored/shards data/filtered":
        Run("scored/shards=tars", files="data/filtered/dataset_info.json", slow=True),
    "python -m experiments.prepare photos data/mine":
        Run("photos", files="data/mine/dataset_info.json"),
    "python -m experiments.prepare pictures/ data/mine --validation=0.05":
        Run("pictures", files="data/mine/dataset_info.json"),
    "python -m experiments.prepare photos OUT --image-column=file --caption-column=text":
        Run("photos=photos_file_text", files="OUT/dataset_info.json"),
    "python -m experiments.prepare photos OUT --table=train.csv":
        Run("photos=photos_two_tables", files="OUT/dataset_info.json"),
    "python -m experiments.prepare tars OUT": Run("tars", files="OUT/dataset_info.json"),
    "python -m experiments.prepare snapshot OUT --from-split=train":
        Run("snapshot", files="OUT/dataset_info.json"),
    "python -m experiments.prepare saved OUT": Run("saved", files="OUT/dataset_info.json"),
    "python -m experiments.prepare ~/tensorflow_datasets/coco_captions/2014/1.1.0 OUT "
    "--caption-column=captions/text": Run("tensorflow_datasets", files="OUT/dataset_info.json"),
    "python -m experiments.prepare coco_captions/2014 OUT --data-dir=$HOME/tensorflow_datasets "
    "--caption-column=captions/text": Run("tensorflow_datasets", files="OUT/dataset_info.json"),
    "python -m experiments.prepare vqa/vqa_train.json OUT --form=picture-questions":
        Run("vqa", files="OUT/dataset_info.json"),
    "python -m experiments.prepare sberquad data/sberquad --form=text-questions":
        Run("sberquad", files="data/sberquad/dataset_info.json"),
    'sbatch --parsable --requeue --array=0-63 --cpus-per-task=16 --wrap="python -m '
    "experiments.prepare /shared/tars /shared/pairs --max-side=256 --workers=16 "
    '--part=\\$SLURM_ARRAY_TASK_ID/64"': Parse(ARRAY),
    'sbatch --dependency=afterok:JOB --wrap="python -m experiments.prepare /shared/tars '
    '/shared/pairs --max-side=256 --max-rejected=0.05 --finish"': Parse(ARRAY),
    "python -m experiments.prepare gs://BUCKET/tars gs://BUCKET/pairs --max-side=256 "
    "--engine=ray:auto": Parse("a Ray cluster; tests/experiments/test_prepare_with_ray.py has one"),
    # Training
    "python -m experiments.train --config=experiments/configs/digits.py --workdir=runs/digits":
        Run("runs/data", f"{SHORT_TRAIN} {SMALL} --config.data.split=test "
            "--config.data.directory=runs/data", "runs/digits/model/config.json"),
    "python -m experiments.train --config=experiments/configs/digits.py --workdir=runs/mine "
    "--config.data.name=data/mine --config.evaluators=\"('retrieval:validation',)\" "
    "--config.optim.learning_rate=5e-4 --config.steps=1000":
        Run("data/mine", f"{SHORT_TRAIN} {SMALL}", "runs/mine/model/config.json", slow=True),
    "python -m experiments.train --config=experiments/configs/digits.py --workdir=runs/mine "
    "--config.init.folder=runs/quickstart/ruclip/model --config.data.name=data/mine "
    "--config.data.batch_size=16 --config.steps=50 --config.optim.learning_rate=1e-4 "
    '--config.optim.warmup_steps=5 --config.evaluators="()"':
        Run("data/mine runs/quickstart/ruclip/model", f"{SHORT_TRAIN} {SMALL}",
            "runs/mine/model/config.json", slow=True),
    "python -m experiments.preflight --config=experiments/configs/digits.py --workdir=runs/digits":
        Run(),
    "python -m experiments.train --config=FILE --workdir=DIR":
        Parse("FILE is any experiment file", FILE),
    "python -m experiments.train --config=experiments/configs/rudolph_350m.py "
    "--workdir=runs/rudolph": Parse("a model of 350 million parameters"),
    "python -m experiments.train ... --distributed=10.0.0.1:8476,2,0":
        Parse("two hosts; tests/experiments/test_processes.py has two processes",
              (("...", "--config=experiments/configs/digits.py --workdir=dir"),)),
    "python -m experiments.train --config=experiments/configs/ruclip_vit_base_patch32_224.py "
    "--workdir=gs://BUCKET/runs/b32 --config.data.name=gs://BUCKET/pairs "
    "--config.data.vocabulary=gs://BUCKET/tokenizer.model --distributed=auto": Parse(LAUNCHER),
    "python -m experiments.train ... --distributed=10.0.0.1:8476,2,1":
        Parse("two hosts; tests/experiments/test_processes.py has two processes",
              (("...", "--config=experiments/configs/digits.py --workdir=dir"),)),
    "for i in 0 1; do python -m experiments.train --config=FILE --workdir=run "
    "--distributed=localhost:7777,2,$i & done; wait":
        Parse("two processes; tests/experiments/test_processes.py has them", FILE),
    'gcloud compute tpus tpu-vm ssh NAME --zone=ZONE --worker=all --command="cd rudolph-jax && '
    ".venv/bin/python -m experiments.train "
    "--config=experiments/configs/ruclip_vit_large_patch14_224.py --workdir=/shared/ruclip-l14 "
    "--config.data.name=/data/pairs --config.data.vocabulary=/shared/ruclip "
    '--distributed=auto"': Parse(LAUNCHER),
    'gcloud compute tpus tpu-vm ssh NAME --zone=ZONE --worker=all --command="cd rudolph-jax && '
    '.venv/bin/python -m experiments.train --config=FILE --workdir=/shared/run '
    '--distributed=auto"': Parse(LAUNCHER, FILE),
    "srun --nodes=4 --ntasks-per-node=8 --gpus-per-node=8 --cpus-per-task=12 .venv/bin/python -m "
    "experiments.train --config=experiments/configs/rudolph_350m.py "
    "--workdir=/shared/runs/rudolph --config.data.name=/shared/pairs "
    "--config.data.vocabulary=/shared/rudolph --distributed=auto":
        Parse(LAUNCHER),
    "srun --nodes=4 --ntasks-per-node=8 --gpus-per-node=8 .venv/bin/python -m experiments.train "
    "--config=FILE --workdir=/shared/run --distributed=auto": Parse(LAUNCHER, FILE),
    "gcloud auth application-default login": NotOurs("Google's credentials"),
    "python -m experiments.model runs/cats models/cats":
        Run("runs/cats", files="models/cats/config.json", slow=True),
    "python -m experiments.model runs/cats models/cats --step=best":
        Run("runs/cats", files="models/cats/config.json", slow=True),
    "python -m experiments.model runs/cats models/cats --step=400 --no-ema":
        Run("runs/cats", files="models/cats/config.json", slow=True),
    "python -m experiments.model WORKDIR OUT --config=FILE":
        Parse("FILE brings own functions; tests/experiments/test_extending.py has one", FILE),
    "python -m experiments.model WORKDIR OUT --wise-ft=0.5":
        Parse("a run that began from a model; tests/experiments/test_fine_tuning.py has one"),
    "python -m experiments.prepare photos data/mine --validation=0.15 --background=white":
        Run("photos", files="data/mine/dataset_info.json data/mine/preview.html"),
    "python -m experiments.train --config=experiments/configs/finetune_clip.py:MODEL "
    "--workdir=runs/mine --config.data.name=data/mine":
        Run("data/mine MODEL=models/ruclip",
            "--config.steps=1 --config.optim.warmup_steps=0 --config.data.batch_size=8",
            "runs/mine/model/config.json", slow=True),
    "python -m benchmarks.fine_tuning": Parse(HOURS),
    "python -m experiments.model WORKDIR OUT --wise-ft=0.3":
        Parse("a run that began from a model; tests/experiments/test_fine_tuning.py has one"),
    "python -m experiments.train --config=FILE --workdir=runs/mine":
        Parse("FILE is any experiment file; tests/experiments/test_extending.py runs them", FILE),
    "python -m experiments.quickstart":
        Run(shorter="--steps=1", files="runs/quickstart/report.html", slow=True),
    "python -m experiments.quickstart --data emoji --download":
        Parse("fetches 10 MB; tests/experiments/test_data_emoji_styles.py has an archive"),
    "python -m experiments.quickstart --data emoji":
        Run(shorter="--steps=1", files="runs/quickstart-emoji/report.html", slow=True),
    # Ablations and plans
    "python -m experiments.sweep --config=experiments/configs/ablations_ruclip.py "
    "--workdir=runs/ablations-ruclip": Parse("36 runs"),
    "python -m experiments.sweep --config=experiments/configs/ablations_rudolph.py "
    "--workdir=runs/ablations-rudolph": Parse("27 runs"),
    "python -m experiments.sweep --config=experiments/configs/digits.py --workdir=runs/rates "
    "--grid optim.learning_rate=3e-4,1e-3,3e-3 --seeds=3 --jobs=2":
        Parse("nine runs; tests/experiments/test_sweep.py has small ones"),
    "python -m experiments.sweep --config=experiments/configs/digits.py --workdir=runs/rates "
    "--grid optim.learning_rate=5e-4,1e-3,2e-3 --grid data.batch_size=64,128 --seeds=2":
        Parse("twelve runs; tests/experiments/test_sweep.py has small ones"),
    "python -m experiments.sweep --help": Run(),
    "python -m experiments.plan --config=experiments/configs/rudolph_2_7b.py "
    "--topology=v5e:16x16": Parse(LIBTPU),
    "python -m experiments.plan --config=... --topology=v5e:16x16":
        Parse(LIBTPU, (("...", "experiments/configs/rudolph_2_7b.py"),)),
    "python -m benchmarks.plan_table --rows=docs/plans.jsonl --csv=docs/plans.csv": Parse(LIBTPU),
    # Evaluation
    "python -m experiments.evaluate report --model=models/ruclip-vit-base-patch16-384 "
    "--data-dir=DIR":
        Run("models/ruclip-vit-base-patch16-384 DIR=own_set", "--sets=DIR --shots=1",
            "runs/evaluation/report.html runs/evaluation/report.md"),
    "python -m experiments.evaluate report --model=digits=runs/quickstart/ruclip/model "
    "--model=emoji=runs/quickstart-emoji/ruclip/model --sets=digits_ru,emoji_ru "
    "--retrieval=digits_ru:test,emoji_ru:new_drawing --data-dir=runs/data":
        Run("runs/quickstart/ruclip/model runs/quickstart-emoji/ruclip/model runs/data",
            "--sets=digits_ru --retrieval=digits_ru:test --parts=zero-shot",
            "runs/evaluation/report.html", slow=True),
    "python -m experiments.evaluate zero-shot --model=models/ruclip-small --model=models/clip-b16 "
    "--translated=models/clip-b16=translations.json":
        Run("models/ruclip-small models/clip-b16 translations.json own=own_set",
            "--sets=own"),
    "$E perplexity $R --sets=cifar10 --first=1001":
        Run(f"{BOTH} tensorflow_datasets/cifar10=cifar10", "--first=4"),
    "$E captions $R --sets=data/mine --ruclip=models/ruclip":
        Run(f"{BOTH} models/ruclip data/mine=data_test", "--first=4"),
    "$E questions $R --sets=data/sberquad --about=text": Run(f"{BOTH} data/sberquad", "--first=4"),
    "$E drawing $R --sets=data/mine --ruclip=models/ruclip --seed=0":
        Run(f"{BOTH} models/ruclip data/mine=data_test", "--first=4"),
    "$E image-tokens $R --sets=data/mine": Run(f"{BOTH} data/mine=data_test", "--first=4"),
    "$E speed --model=models/ruclip": Run("models/ruclip", "--rounds=1"),
    'E="python -m experiments.evaluate"': NotOurs("a variable of the lines below it"),
    'R="--model=models/rudolph --vqgan=models/vqgan"': NotOurs("a variable of the lines below it"),
    "python -m experiments.evaluate image-tokens --sets=digits_ru --weights=... --dtype=...":
        Parse("a table of several; the models are named in the text",
              (("--weights=...", "--weights=int8"),
               ("--dtype=...", "--dtype=float32 --model=models/rudolph --vqgan=models/vqgan"))),
    "python -m experiments.translate --model=opus-mt-ru-en --sets=all --cache=translations.json":
        Parse("needs PyTorch; tests/experiments/test_translation.py translates"),
    # Benchmarks and pictures
    "python -m benchmarks.input_pipeline --images=512": Run(shorter="--images=2", slow=True),
    "python -m benchmarks.search": Run(shorter="--rows=2000 --queries=20 --width=16", slow=True),
    "python -m benchmarks.stream": Run(shorter="--records 1000 --shard-records=100"),
    "python -m benchmarks.table_planning --rows=50000000": Run(shorter="--rows=5000"),
    "python -m benchmarks.lost_process":
        Parse("minutes; tests/benchmarks/test_lost_process.py has four processes"),
    "python -m benchmarks.scale_table": Run(),
    "python -m benchmarks.loss_memory": Parse("minutes; tests/benchmarks/test_loss_memory.py"),
    "python -m benchmarks decode --batches=1,8 --dtypes=float32": Parse(HOURS),
    "python -m benchmarks encode|train|loss|convert|data|startup|scaling --help":
        Run(shorter=""),
    "python -m benchmarks gpu --minutes=9 --out=gpu.json":
        Parse("minutes of a GPU; tests/benchmarks/test_gpu.py"),
    "python -m benchmarks train --steady": Parse(HOURS),
    "python -m benchmarks scaling --plot=docs/pictures/scaling.png": Parse(HOURS),
    "python -m docs.tools.app_images docs/pictures": Parse("needs Chromium"),
    "python -m docs.tools.upscaling_images docs/pictures --model=runs/upscaler":
        Parse("minutes of training"),
    "python -m docs.tools.structure_images docs/pictures": Run(files="docs/pictures/masks.png"),
    # Others' programs, and settings
    "python3 -m venv env": NotOurs("Python's own"),
    ". env/bin/activate": NotOurs("the shell's own"),
    "hf auth login": NotOurs("the hub's own program"),
    "hf upload me/my-clip FOLDER": NotOurs("the hub's own program"),
    "hf download clip-benchmark/wds_cars --repo-type dataset --local-dir "
    "~/tensorflow_datasets/stanford_cars": NotOurs("the hub's own program"),
    "jupyter lab docs/notebooks": NotOurs("Jupyter; tests/experiments/test_notebooks.py runs them"),
    ".ci/run": NotOurs("the tests themselves"),
}  # fmt: skip
