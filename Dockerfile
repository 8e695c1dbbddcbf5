# docker build --build-arg ACCELERATOR=tpu --tag IMAGE .      cpu, cuda or tpu
# docker run IMAGE                                            the options of experiments.train
# docker run IMAGE experiments.prepare SOURCE OUT             any command of the project
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

ARG ACCELERATOR=cpu
WORKDIR /rudolph-jax
COPY pyproject.toml README.md LICENSE ./
COPY clip_jax clip_jax
COPY rudolph_jax rudolph_jax
COPY experiments experiments
COPY converters converters
COPY docs/accelerators.json docs/accelerators.json
COPY docs/launch docs/launch
RUN PIP_NO_CACHE_DIR=1 docs/launch/install "$ACCELERATOR"

# The container runtime of NVIDIA gives GPUs to images that name them; others ignore it.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENV PATH=/rudolph-jax/.venv/bin:$PATH
ENTRYPOINT ["python", "-m"]
CMD ["experiments.train", "--help"]
