"""The public names, in a list: a name that comes or goes is a decision, seen in a diff."""

import importlib
import inspect
import pathlib
import pkgutil

import pytest

import fedcore
import fedlearn
import fedsim

LIST = pathlib.Path(__file__).parent / "goldens" / "public_api.txt"


def public_modules(module):
    yield module
    for name in sorted(getattr(module, "__all__", ())):
        member = getattr(module, name)
        if inspect.ismodule(member) and member.__name__.startswith(module.__name__):
            yield from public_modules(member)


def public_names():
    modules = [m for root in (fedcore, fedlearn, fedsim) for m in public_modules(root)]
    return sorted(
        f"{module.__name__}.{name}"
        for module in modules
        for name in getattr(module, "__all__", ())
    )


def test_the_list_is_that_of_the_code(update_goldens):
    names = public_names()
    if update_goldens:
        LIST.write_text("\n".join(names) + "\n")
    recorded = LIST.read_text().split()
    assert names == recorded, "run `pytest tests/test_public_api.py --update-goldens`"


@pytest.mark.parametrize("root", [fedcore, fedlearn, fedsim], ids=lambda m: m.__name__)
def test_every_module_imports(root):
    for found in pkgutil.walk_packages(root.__path__, f"{root.__name__}."):
        importlib.import_module(found.name)


def test_everything_public_is_documented():
    undocumented = []
    for path in public_names():
        module, name = path.rsplit(".", 1)
        member = getattr(importlib.import_module(module), name)
        if callable(member) and inspect.getmodule(member) is not None:
            ours = inspect.getmodule(member).__name__.split(".")[0]
            if ours in ("fedcore", "fedlearn", "fedsim") and not inspect.getdoc(member):
                undocumented.append(path)
    assert not undocumented
