"""The commands of docs/launch: those of this project are parsed, the others are of launchers."""

from table import NotOurs, Parse

HOSTS = Parse("a launcher of several hosts")
GOOGLE = NotOurs("Google Cloud's command")
DOCKER = NotOurs("an image; test_launch.py checks what a machine without Docker can")
TOOL = NotOurs("installs a launcher")
XPK = NotOurs("a cluster of GKE")
SKY = NotOurs("SkyPilot's command")
SHELL = NotOurs("variables of the lines below it")
GIT = NotOurs("an archive of the checkout")
SCRIPT = NotOurs("a file of docs/launch, which test_launch.py runs")

BUCKETS = Parse("a bucket; tests/experiments/test_buckets.py has one")
LIBTPU = Parse("libtpu, and minutes; tests/experiments/test_plan.py compiles for CPU devices")

LAUNCH: dict[str, Parse | NotOurs] = {
    "gcloud auth login": GOOGLE,
    "gcloud config set project PROJECT": GOOGLE,
    "gcloud services enable container.googleapis.com artifactregistry.googleapis.com "
    "storage.googleapis.com": GOOGLE,
    "gcloud storage buckets create gs://BUCKET --location=us-west4 "
    "--uniform-bucket-level-access": GOOGLE,
    "gcloud artifacts repositories create images --repository-format=docker "
    "--location=us-west4": GOOGLE,
    "gcloud auth configure-docker us-west4-docker.pkg.dev": GOOGLE,
    "docker build --build-arg ACCELERATOR=tpu --tag "
    "us-west4-docker.pkg.dev/PROJECT/images/rudolph-jax:1 .": DOCKER,
    "docker push us-west4-docker.pkg.dev/PROJECT/images/rudolph-jax:1": DOCKER,
    "pipx install xpk==1.16.0": TOOL,
    "xpk cluster create --cluster=train --project=PROJECT --zone=us-west4-a "
    "--tpu-type=v5litepod-256 --num-slices=1 --spot": XPK,
    "xpk workload create --cluster=train --project=PROJECT --zone=us-west4-a "
    "--workload=b32-check --tpu-type=v5litepod-256 --num-slices=1 "
    "--docker-image=us-west4-docker.pkg.dev/PROJECT/images/rudolph-jax:1 "
    '--command="python -m experiments.preflight '
    "--config=experiments/configs/ruclip_vit_base_patch32_224.py "
    "--workdir=gs://BUCKET/runs/b32 --config.data.name=gs://BUCKET/pairs "
    "--config.data.vocabulary=gs://BUCKET/tokenizer.model "
    '--config.init.folder=gs://BUCKET/models/clip-vit-base-patch32 --distributed=auto"': HOSTS,
    "xpk workload create --cluster=train --project=PROJECT --zone=us-west4-a "
    "--workload=b32 --tpu-type=v5litepod-256 --num-slices=1 "
    "--docker-image=us-west4-docker.pkg.dev/PROJECT/images/rudolph-jax:1 "
    "--max-restarts=1000 --restart-on-exit-codes=5,75 "
    "--termination-grace-period-seconds=60 "
    '--env=JAX_COMPILATION_CACHE_DIR=gs://BUCKET/programs --command="python -m '
    "experiments.train --config=experiments/configs/ruclip_vit_base_patch32_224.py "
    "--workdir=gs://BUCKET/runs/b32 --config.data.name=gs://BUCKET/pairs "
    "--config.data.vocabulary=gs://BUCKET/tokenizer.model "
    '--config.init.folder=gs://BUCKET/models/clip-vit-base-patch32 --distributed=auto"': HOSTS,
    "kubectl logs --selector=jobset.sigs.k8s.io/jobset-name=b32 --follow --prefix": XPK,
    "xpk workload delete --cluster=train --project=PROJECT --zone=us-west4-a "
    "--workload=b32": XPK,
    "xpk cluster delete --cluster=train --project=PROJECT --zone=us-west4-a": XPK,
    "docs/launch/tpu_slice": SCRIPT,
    "docs/launch/restart COMMAND": SCRIPT,
    "docs/launch/install cpu|cuda|tpu": SCRIPT,
    "docker build --build-arg ACCELERATOR=tpu --tag IMAGE .": DOCKER,
    "docker run IMAGE experiments.train --help": DOCKER,
    "docker run --gpus=all": DOCKER,
    "docs/launch/install cpu": SCRIPT,
    "pipx install 'skypilot[gcp]==0.14.1'": TOOL,
    "sky check gcp": SKY,
    "sky jobs launch --env BUCKET=BUCKET docs/launch/skypilot.yaml": SKY,
    "sky jobs queue": SKY,
    "sky jobs logs --follow": SKY,
    "sky jobs cancel --all": SKY,
    "docs/launch/install cuda": SCRIPT,
    ".venv/bin/python -m experiments.preflight "
    "--config=experiments/configs/rudolph_350m.py --workdir=/shared/runs/rudolph-350m "
    "--config.data.name=/shared/pairs --config.data.vocabulary=/shared/tokenizer.model "
    "--config.settings.vqgan=/shared/models/vqgan-gumbelf8": HOSTS,
    "sbatch docs/launch/train.sbatch": SCRIPT,
    "docs/launch/restart": SCRIPT,
    "gcloud services enable tpu.googleapis.com storage.googleapis.com": GOOGLE,
    "gcloud storage buckets add-iam-policy-binding gs://BUCKET "
    "--member=serviceAccount:NUMBER-compute@developer.gserviceaccount.com "
    "--role=roles/storage.objectUser": GOOGLE,
    "export NAME=b32 ZONE=us-west4-a TYPE=v5litepod-256 RUNTIME=v2-alpha-tpuv5-lite": SHELL,
    'docs/launch/tpu_slice "python -m experiments.preflight '
    "--config=experiments/configs/ruclip_vit_base_patch32_224.py "
    "--workdir=gs://BUCKET/runs/b32 --config.data.name=gs://BUCKET/pairs "
    "--config.data.vocabulary=gs://BUCKET/tokenizer.model "
    '--config.init.folder=gs://BUCKET/models/clip-vit-base-patch32 --distributed=auto"': HOSTS,
    'docs/launch/tpu_slice "env JAX_COMPILATION_CACHE_DIR=gs://BUCKET/programs python -m '
    "experiments.train --config=experiments/configs/ruclip_vit_base_patch32_224.py "
    "--workdir=gs://BUCKET/runs/b32 --config.data.name=gs://BUCKET/pairs "
    "--config.data.vocabulary=gs://BUCKET/tokenizer.model "
    '--config.init.folder=gs://BUCKET/models/clip-vit-base-patch32 --distributed=auto"': HOSTS,
    "gcloud compute tpus queued-resources delete b32 --zone=us-west4-a --force --quiet": GOOGLE,
    "gcloud compute tpus queued-resources create b32 --node-id=b32 --zone=us-west4-a "
    "--accelerator-type=v5litepod-256 --runtime-version=v2-alpha-tpuv5-lite --spot": GOOGLE,
    "gcloud compute tpus queued-resources describe b32 --zone=us-west4-a "
    "--format='value(state.state)'": GOOGLE,
    "git archive --format=tar.gz --prefix=rudolph-jax/ --output=rudolph-jax.tar.gz HEAD": GIT,
    "gcloud compute tpus tpu-vm scp rudolph-jax.tar.gz b32:rudolph-jax.tar.gz "
    "--zone=us-west4-a --worker=all": GOOGLE,
    'gcloud compute tpus tpu-vm ssh b32 --zone=us-west4-a --worker=all --command="tar '
    'xzf rudolph-jax.tar.gz && rudolph-jax/docs/launch/install tpu"': GOOGLE,
    'gcloud compute tpus tpu-vm ssh b32 --zone=us-west4-a --worker=all --command="cd '
    "rudolph-jax && JAX_COMPILATION_CACHE_DIR=gs://BUCKET/programs docs/launch/restart "
    ".venv/bin/python -m experiments.train "
    "--config=experiments/configs/ruclip_vit_base_patch32_224.py "
    "--workdir=gs://BUCKET/runs/b32 --config.data.name=gs://BUCKET/pairs "
    "--config.data.vocabulary=gs://BUCKET/tokenizer.model "
    '--config.init.folder=gs://BUCKET/models/clip-vit-base-patch32 --distributed=auto"': HOSTS,
    "gcloud ... ssh --worker=all": GOOGLE,
    # docs/tpu_pod.md
    "python -m experiments.plan --config=experiments/configs/ruclip_vit_base_patch16_224.py "
    "--topology=v5e:16x16": LIBTPU,
    "python -m experiments.prepare gs://BUCKET/tars gs://BUCKET/pairs --max-side=256 "
    "--shard-records=24000 --workers=16 --part=0/64": BUCKETS,
    "python -m experiments.prepare gs://BUCKET/tars gs://BUCKET/pairs --max-side=256 "
    "--shard-records=24000 --max-rejected=0.05 --finish": BUCKETS,
    "python -m converters openai-clip ViT-B-16.pt gs://BUCKET/models/clip-vit-base-patch16":
        BUCKETS,
    "python -m converters vqgan vqgan.gumbelf8-sber.model.ckpt "
    "gs://BUCKET/models/vqgan-gumbelf8": BUCKETS,
    "python -m experiments.preflight --config=experiments/configs/ruclip_vit_base_patch16_224.py "
    "--workdir=gs://BUCKET/runs/b16 --config.data.name=gs://BUCKET/pairs "
    "--config.data.vocabulary=gs://BUCKET/tokenizer.model "
    "--config.init.folder=gs://BUCKET/models/clip-vit-base-patch16 --config.data.threads=128 "
    "--distributed=auto": HOSTS,
    "JAX_COMPILATION_CACHE_DIR=gs://BUCKET/programs python -m experiments.train "
    "--config=experiments/configs/ruclip_vit_base_patch16_224.py "
    "--workdir=gs://BUCKET/runs/b16 --config.data.name=gs://BUCKET/pairs "
    "--config.data.vocabulary=gs://BUCKET/tokenizer.model "
    "--config.init.folder=gs://BUCKET/models/clip-vit-base-patch16 --config.data.threads=128 "
    "--distributed=auto": HOSTS,
    "python -m experiments.model gs://BUCKET/runs/b16 gs://BUCKET/models/b16": BUCKETS,
    "python -m experiments.evaluate report --model=gs://BUCKET/models/b16 "
    "--data-dir=gs://BUCKET/sets --out=gs://BUCKET/evaluation": BUCKETS,
    "python -m converters export gs://BUCKET/models/b16 ruclip-b16": BUCKETS,
    "python -m converters verify gs://BUCKET/models/b16": BUCKETS,
}  # fmt: skip
