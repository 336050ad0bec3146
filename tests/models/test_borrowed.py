"""What is read of transformers under private or changing names: in one place, under every name that it had."""

import ast
import re
import subprocess
import sys

import pytest
import torch
from transformers import DynamicCache

from lib.models.borrowed import (
    CACHE,
    LOWEST,
    NEWEST,
    arguments,
    cache_of,
    kernel_name,
    warn_if_untested,
    with_kernel,
)
from lib.paths import ROOT

BORROWED = ROOT / "lib" / "models" / "borrowed.py"
CHANGING = re.compile(r"past_key_values|_attn_implementation|eager_attention_forward|AutoImageProcessor")
PUBLIC = {"transformers", "transformers.utils"}  # modules whose names transformers documents


def read_elsewhere(path):
    """Changing names in the code of a file, and what it imports from modules inside transformers."""
    text = path.read_text(encoding="utf-8")
    nodes = list(ast.walk(ast.parse(text)))
    found = [node.attr for node in nodes if isinstance(node, ast.Attribute)]
    found += [node.arg for node in nodes if isinstance(node, (ast.keyword, ast.arg)) and node.arg]
    found += [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    imports = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    imports += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    private = [name for name in imports if name.split(".")[0] == "transformers" and name not in PUBLIC]
    return [name for name in found if CHANGING.fullmatch(name)] + private


def test_changing_names_are_read_in_one_place():
    assert read_elsewhere(BORROWED)  # the test sees what it looks for
    files = [path for path in (ROOT / "lib").rglob("*.py") if path != BORROWED]
    assert not {path.name: found for path in files if (found := read_elsewhere(path))}


class New(torch.nn.Module):
    def forward(self, input_ids, cache=None, **kwargs):
        return input_ids


class Old(torch.nn.Module):
    def forward(self, input_ids, past_key_values=None, **kwargs):
        return input_ids


@pytest.mark.parametrize("module", [New(), Old()])
@pytest.mark.parametrize("name", sorted({CACHE, "past_key_values"}))
def test_a_cache_is_found_by_the_new_and_the_old_name(module, name):
    cache = DynamicCache()
    if name == "cache" and name != CACHE:
        pytest.skip("a name that this version of transformers does not have")
    assert cache_of({name: cache, "other": 1}) is cache
    found = arguments(module, (3,), {name: cache, "more": 5})
    assert found[CACHE] is cache
    assert (found["input_ids"], found["more"]) == (3, 5)


def test_without_a_cache_there_is_none():
    assert cache_of({"past_key_values": None}) is None
    assert arguments(Old(), (3,), {})[CACHE] is None


def test_another_kernel_is_named_on_a_copy(model):
    config = model.model.language_model.config
    before = kernel_name(config)
    assert kernel_name(with_kernel(config, "other")) == "other"
    assert kernel_name(config) == before


def test_a_version_newer_than_the_tested_one_warns_once_and_names_both():
    code = (
        "import sys, warnings\n"
        f"sys.path.insert(0, {str(ROOT / 'tests')!r})\n"
        "import transformers\n"
        "transformers.__version__ = '99.1.0'\n"
        "with warnings.catch_warnings(record=True) as seen:\n"
        "    warnings.simplefilter('always')\n"
        "    from lib.models.prune import prune\n"
        "    from lib.pruning.methods import DivPrune\n"
        "    from testkit.tiny import build_inputs, build_model\n"
        "    for _ in range(2):\n"
        "        model = build_model()\n"
        "        with prune(model, DivPrune(keep=6)):\n"
        "            model(**build_inputs())\n"
        "print(*[w.message for w in seen if 'tested' in str(w.message)], sep='\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    (message,) = done.stdout.strip().splitlines()
    assert "99.1.0" in message
    assert NEWEST in message


@pytest.mark.parametrize("version", [LOWEST, NEWEST, f"{NEWEST}.dev0"])
def test_a_tested_version_does_not_warn(version):
    warn_if_untested(version)  # warnings are errors here
