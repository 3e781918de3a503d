"""Everything that can be set, with its default: the quick start.

The comments in `presets/quickstart.toml` say the same for people; a test keeps both in step.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from elsa.config.aggregation import Aggregate, aggregation_problem
from elsa.config.attacking import attack_problem
from elsa.config.clustering import Cluster
from elsa.config.methods import method_problem
from elsa.config.overlapping import overlap_problem
from elsa.config.placement import placement_problem
from elsa.config.privacy import Audit, Noise, SsOp, noise_problem
from elsa.config.section import Count, Fraction, Positive, Section
from elsa.config.splitting import split_problem
from elsa.config.stragglers import straggler_problem
from elsa.config.words import Wire


class Run(Section):
    """The run as a whole."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "quickstart"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    threads: Annotated[int, Field(ge=0)] = 0
    """Compute threads; 0 takes one a physical core."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """What computes; "auto" takes the best that this machine has."""
    method: str = ""
    """Name of a method whose settings win over those below; see docs/compare.md."""


class Model(Section):
    """The pre-trained model."""

    path: str = "minilm"
    """Name of an asset, a local Hugging Face directory, or a hub id."""
    task: Literal["classification", "causal-lm"] = "classification"
    pooling: Literal["auto", "mean", "cls", "last"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    embeddings: Literal["auto", "bfloat16", "int8"] = "auto"
    """What the frozen embedding and output matrices are held in; "auto" as the other weights."""
    max_tokens: Count = 128


class Rows(Section):
    """Rows of text: where they come from, and which are for testing."""

    path: str = "trec"
    """Name of an asset, a CSV, JSONL or Parquet file, or a `datasets` directory."""
    text: str = "text"
    pair: str = ""
    label: str = "label"
    group: str = ""
    labels: tuple[str, ...] = ()
    """The classes, in order; empty takes those found. Real devices must be told."""
    test: str = ""
    """File of test rows; empty splits `test_fraction` off `path`."""
    test_fraction: Fraction = 0.2
    holdout_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Part of each device's own rows kept for its own evaluation."""
    limit: Annotated[int, Field(ge=0)] = 0
    """Rows to take of `path`, chosen by the seed; 0 takes all."""


class Data(Rows):
    """The text."""

    answer: str = ""
    """Column of the answer to the text: the model's chat template joins them, answers count."""
    messages: str = ""
    """Column of conversations, instead of texts and answers."""


class Task(Rows):
    """One of several data sets of a run, with a head of its own."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")] = "task"
    share: Positive = 1.0
    """Devices that hold it, in proportion to the other tasks' shares."""


class Partition(Section):
    """How the rows lie on the devices."""

    kind: Literal["iid", "dirichlet", "group", "natural"] = "dirichlet"
    alpha: Positive = 0.5
    min_rows: Count = 16
    rare_devices: Annotated[int, Field(ge=0)] = 0
    """Honest devices, the last ones, that hold the rarest class and nothing else."""
    small_devices: Annotated[int, Field(ge=0)] = 0
    """Honest devices, those before them, that hold `small_rows` rows."""
    small_rows: Count = 4


class Federation(Section):
    """Who takes part, and how often what is averaged."""

    devices: Count = 10
    edges: Count = 2
    rounds: Count = 10
    edge_rounds: Count = 2
    local_steps: Count = 10
    participation: Fraction = 1.0
    trunk: Literal["per-device", "shared", "sequential"] = "per-device"
    pooled: bool = False
    """One trainer has the rows and takes the steps of all; the devices only evaluate."""

    @property
    def steps(self) -> int:
        """Optimizer steps in an edge round of whoever trains."""
        devices = max(1, round(self.participation * self.devices)) if self.pooled else 1
        return self.local_steps * devices


class Split(Section):
    """Where the model is cut."""

    bottom: Count = 1
    top: Annotated[int, Field(ge=0)] = 1
    layout: Literal["three-part", "two-part", "whole"] = "three-part"
    """Others than three parts are only compared with."""
    freeze: Literal["none", "bottom", "trunk"] = "none"
    """What has no adapters: nothing, all below the first cut, or all below the second."""
    keep_mb: Count = 256
    """Frozen trunk: hidden states that a device keeps at most, so as not to ask for them again."""
    mode: Literal["fixed", "fitted"] = "fixed"
    """Alike on all devices, or fitted to each."""
    bottom_min: Count = 1
    """Least p of a fitted split: the deeper the cut, the harder to invert."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Part of a step's time that new splits must gain."""
    every: Count = 5
    """Global rounds between plans."""


class Adapter(Section):
    """LoRA."""

    rank: Count = 8
    alpha: Positive = 16.0
    ranks: tuple[Count, ...] = ()
    """Ranks of the devices, in equal shares in their order; empty gives all `rank`."""
    targets: tuple[str, ...] = ()
    """Names of linear layers; empty takes the family's default."""

    @property
    def mixed(self) -> bool:
        """Whether some device has another rank than `rank`."""
        return any(rank != self.rank for rank in self.ranks)


class Train(Section):
    """The devices' and edges' optimizers (AdamW)."""

    batch_size: Count = 16
    micro_batch: Annotated[int, Field(ge=0)] = 0
    """Rows whose activations a device holds at once; 0 holds those of the whole batch."""
    recompute: bool = False
    """Whether a device's blocks run again in the backward pass instead of keeping activations."""
    in_flight: Count = 1
    """Micro-batches that a step's batch is cut into, all under way at once; 1 sends it whole."""
    learning_rate: Positive = 4e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    optimizer_state: Literal["keep", "reset"] = "keep"
    """What becomes of the moments when a round replaces the adapters."""
    bucketing: bool = True


class Attack(Section):
    """Devices that poison the federation, for studies; see docs/attacks.md."""

    kind: Literal["none", "label-flip", "random", "sign-flip", "scaled", "free-rider"] = "none"
    devices: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Numbers of the poisoned devices, from 0."""
    fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Part of all devices to poison instead, drawn by the seed."""
    first_round: Annotated[int, Field(ge=0)] = 0
    until_round: Annotated[int, Field(ge=0)] = 0
    """Global round before which it ends; 0 lasts to the end."""
    scale: Positive = 1.0
    noise: Annotated[float, Field(ge=0)] = 0.0
    """Of a free rider: norm of the noise, as a part of the norm of what it adds it to."""


class Link(Section):
    """One kind of link of the virtual clock."""

    latency_ms: Annotated[float, Field(ge=0)]
    up_mbps: Positive
    down_mbps: Positive


class Network(Section):
    """The virtual clock: links and speeds from which simulated time is computed."""

    device_edge: Link = Link(latency_ms=10.0, up_mbps=20.0, down_mbps=50.0)
    edge_cloud: Link = Link(latency_ms=40.0, up_mbps=200.0, down_mbps=200.0)
    device_gflops: Positive = 20.0
    edge_gflops: Positive = 1000.0
    spread: Annotated[float, Field(ge=0, le=2)] = 0.3
    """Sigma of the log-normal factor by which devices differ in speed and bandwidth."""
    latency_spread: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Sigma of the log-normal factor of the latency between each device and each edge."""
    slow: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Part of the devices, drawn by the seed, whose computing and link are slower still."""
    slow_factor: Annotated[float, Field(ge=1)] = 5.0
    """How many times slower they are."""
    drift: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Sigma of the log-normal factor by which both change from round to round."""
    device_memory_mb: tuple[Positive, ...] = ()
    """Sizes of memory, each of an equal share of the devices, drawn by the seed."""


class Deploy(Section):
    """Real machines: what links edges and cloud; how long is waited for what, in seconds; what
    devices spare."""

    link: Literal["grpc", "flower"] = "grpc"
    answer_seconds: Positive = 60.0
    reconnect_seconds: Positive = 20.0
    round_seconds: Positive = 3600.0
    sparing: bool = True
    """Whether a device holds as little as it can, and takes longer for it."""
    device_quorum: Fraction = 1.0
    """Part of an edge's devices that is enough for an edge round."""
    edge_quorum: Fraction = 1.0
    """Part of the edges that is enough for a global round."""
    straggler_seconds: Annotated[float, Field(ge=0)] = 30.0
    """What the others have left once enough are done."""


class Evaluate(Section):
    """Evaluation of the global adapters."""

    every: Count = 5
    batch_size: Count = 64


class Config(Section):
    """A whole run."""

    run: Run = Run()
    model: Model = Model()
    data: Data = Data()
    task: tuple[Task, ...] = ()
    """Several tasks; if there are any, `data` is not read."""
    partition: Partition = Partition()
    federation: Federation = Federation()
    split: Split = Split()
    adapter: Adapter = Adapter()
    train: Train = Train()
    aggregate: Aggregate = Aggregate()
    cluster: Cluster = Cluster()
    wire: Wire = Wire()
    ssop: SsOp = SsOp()
    attack: Attack = Attack()
    noise: Noise = Noise()
    network: Network = Network()
    deploy: Deploy = Deploy()
    evaluate: Evaluate = Evaluate()
    audit: Audit = Audit()

    @model_validator(mode="after")
    def _possible(self) -> "Config":
        if self.federation.edges > self.federation.devices:
            raise ValueError(
                f"federation.edges = {self.federation.edges} is more than federation.devices = "
                f"{self.federation.devices}: an edge without devices has nothing to average"
            )
        grouped = all(data.group for data in self.task or (self.data,))
        if self.partition.kind in ("group", "natural") and not grouped:
            raise ValueError(
                f"partition.kind = '{self.partition.kind}' needs data.group, "
                "the column that says to which group or user a row belongs"
            )
        self._check_answers()
        if self.model.task == "causal-lm" and self.partition.kind == "dirichlet":
            raise ValueError(
                "partition.kind = 'dirichlet' needs labels, which model.task = 'causal-lm' has "
                "not; allowed: 'iid', 'group', 'natural'"
            )
        self._check_tasks()
        self._check_unusual()
        for problem in (
            attack_problem,
            aggregation_problem,
            straggler_problem,
            split_problem,
            noise_problem,
            placement_problem,
            overlap_problem,
            method_problem,
        ):
            if found := problem(self):
                raise ValueError(found)
        return self

    def _check_answers(self) -> None:
        """Answers and conversations are for language models, which read no pairs."""
        data, causal = self.data, self.model.task == "causal-lm"
        asked = [key for key in ("answer", "messages") if getattr(data, key)]
        if asked and not causal:
            raise ValueError(
                f"data.{asked[0]} = '{getattr(data, asked[0])}' needs model.task = 'causal-lm': "
                "a classifier learns data.label"
            )
        if len(asked) > 1:
            raise ValueError(
                "data.answer and data.messages exclude each other: a conversation has its answers "
                "in it"
            )
        if data.pair and causal:
            raise ValueError(
                f"data.pair = '{data.pair}' needs model.task = 'classification'; a language "
                "model learns the column data.answer as the answer to data.text"
            )

    def _check_tasks(self) -> None:
        """Each task needs a name, labels, and at least one device."""
        names = [task.name for task in self.task]
        if len(set(names)) < len(names):
            raise ValueError(
                f"task.name: {', '.join(names)} are the names of [[task]]; each must be another"
            )
        if len(names) > self.federation.devices:
            raise ValueError(
                f"{len(names)} tables [[task]] for federation.devices = "
                f"{self.federation.devices}: each task needs a device"
            )
        if names and self.model.task == "causal-lm":
            raise ValueError(
                "[[task]] gives each task a head, which model.task = 'causal-lm' has not: put "
                "the texts into one file, or set model.task = 'classification'"
            )
        if names and self.partition.rare_devices + self.partition.small_devices:
            raise ValueError(
                "partition.rare_devices and partition.small_devices go with one data set, "
                "that of [data], and not with [[task]]"
            )

    def _check_unusual(self) -> None:
        """Devices set apart for rare or little data need rows that anyone may hold."""
        apart = self.partition.rare_devices + self.partition.small_devices
        if apart >= self.federation.devices:
            raise ValueError(
                f"partition.rare_devices + partition.small_devices = {apart} leaves no other of "
                f"federation.devices = {self.federation.devices}: lower them"
            )
        if apart and self.partition.kind not in ("iid", "dirichlet"):
            raise ValueError(
                f"partition.kind = '{self.partition.kind}' says who holds which row: "
                "rare_devices and small_devices go with 'iid' and 'dirichlet' only"
            )
        if self.partition.rare_devices and self.model.task == "causal-lm":
            raise ValueError(
                f"partition.rare_devices = {self.partition.rare_devices} needs labels, which "
                "model.task = 'causal-lm' has not"
            )
