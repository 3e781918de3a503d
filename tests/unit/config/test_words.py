"""The words of [wire] are refused where they can be no codec, whatever the model."""

import subprocess
import sys

import pytest

from elsa.config.load import load_config
from elsa.config.words import HOPS, PRESETS, Wire, needs_public_text, read_words, words_of
from elsa.errors import ConfigError


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("wire.h1=quantize:5", "quantize: bits = 5; allowed: 2, 3, 4, 8"),
        ("wire.h1=quantize:8:token:gauss", "gauss levels are for 2, 3 and 4 bits"),
        ("wire.h1=quantize:4:token:gauss:stochastic", "and for nearest rounding"),
        ("wire.h1=quantize:4:-1", "block = -1; allowed: token, or a number above 0"),
        ("wire.h2=top:0", "top-k: k = 0; allowed: 1 to the hidden size"),
        ("wire.g2=sketch:3x0", "3 rows of 0 buckets; allowed: 1 or more of each"),
        ("wire.g2=sketch:-2", "ratio = -2.0; allowed: above 0"),
        ("wire.g2=sketch:nan", "ratio = nan; allowed: above 0"),
        ("wire.g2=sketch:2:0", "shrink = 0.0; allowed: above 0, up to 1"),
        ("wire.g1=fill:0.3:8", "g1 has no public directions, only h1 and h2 have"),
        ("wire.g1=fill:nan", "fill: error = nan; allowed: 0.1 to below 1"),
        ("wire.g2=temporal:0.2", "temporal is for h1 and h2; take fill for gradients"),
        ("wire.g2=subspace:4+quantize:4", "g2 has no public directions"),
        ("wire.h1=temporal:0.2:8:-1", "-1 megabytes; allowed: 0 or more"),
        ("wire.h1=subspace:0+quantize:4", "0 directions; allowed: 1 to the hidden size"),
        ("wire.h1=quantize:4+rotate", "'quantize:4' is a coder and must come last"),
        ("wire.h1=rotate+exact", "'exact' stands alone"),
        ("wire.h1=rotate+fill:0.2+quantize:4", "'fill:0.2' stands alone"),
        ("wire.h1=rotate+feedback+quantize:4", "'feedback' comes too late"),
        ("wire.h1=subspace:4+feedback+quantize:4", "'feedback' comes too late"),
        ("wire.h1=feedback+feedback+quantize:4", "'feedback' comes too late"),
        ("wire.h1=feedback", "'' is no stage"),
        ("wire.h1=rotate+", "'' is no stage"),
    ],
)
def test_what_can_be_no_codec_is_refused_with_its_key(setting: str, why: str) -> None:
    key, _, words = setting.partition("=")
    with pytest.raises(ConfigError) as caught:
        load_config(None, [setting])
    assert f'{key} = "{words}" (from --set): ' in str(caught.value)
    assert why in str(caught.value)


def test_a_block_that_is_left_out_is_a_token() -> None:
    for words in ("quantize:4", "quantize:4:token", "quantize:4::uniform"):
        assert read_words(words, "h1")[0].arguments == (4, 0, "uniform", "nearest")


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_can_be_read_for_any_hidden_size(preset: str) -> None:
    for hidden in (2, 64, 4096):
        for hop, words in words_of(Wire.model_validate({"preset": preset}), hidden).items():
            assert read_words(words, hop)


@pytest.mark.parametrize(
    ("wire", "hops"),
    [
        (Wire(), ["h1", "h2"]),
        (Wire(preset="exact"), []),
        (Wire(preset="paper"), []),
        (Wire(preset="exact", h2="temporal:0.2"), []),
        (Wire(preset="exact", h2="temporal:0.2:8"), ["h2"]),
        (Wire(preset="exact", h1="feedback+subspace:4+rotate"), ["h1"]),
        (Wire(h1="exact", h2="quantize:4"), []),
    ],
)
def test_only_axes_need_public_text(wire: Wire, hops: list[str]) -> None:
    assert needs_public_text(wire) == hops


def test_every_hop_has_a_codec_by_default() -> None:
    assert set(words_of(Wire())) == set(HOPS)
    assert "exact" not in words_of(Wire()).values()


def test_words_are_checked_without_torch() -> None:
    code = (
        "import sys; from elsa.config.words import read_words; read_words('fill:0.3', 'g1');"
        "sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
