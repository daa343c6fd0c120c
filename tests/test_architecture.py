"""The rules of the house: imports go down only, files stay small, faces are said."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("fedcore", "fedsim", "fedlearn")

# The floor of each module, by the longest prefix of its name.
FLOORS = {
    "fedcore._containers": 0,
    "fedcore._users_line": 0,
    "fedcore._version": 0,
    "fedcore.structure": 0,
    "fedcore.types": 0,
    "fedcore.ir": 1,
    "fedcore.context": 2,
    "fedcore.computation": 2,
    "fedcore.tensorflow": 3,
    "fedcore.federated": 4,
    "fedcore.compiler": 5,
    "fedcore.templates": 5,
    "fedcore.program": 5,
    "fedcore.framework": 5,
    "fedcore.backends": 5,
    "fedcore.test": 5,
    "fedcore.profiler": 5,
    "fedcore.async_utils": 5,
    "fedcore.aggregators": 6,
    "fedcore.analytics": 6,
    "fedsim": 7,
    "fedlearn": 7,
    "fedsim.baselines": 8,
    "fedsim.compositions": 8,
    "fedsim.study": 8,
}
# Inside fedlearn: a part may import those before it.
FEDLEARN = [
    "optimizers",
    "metrics",
    "models",
    "templates",
    "algorithms",
    "reconstruction",
    "programs",
]
# The intrinsic table is one idea however long it grows.
MAY_BE_LONG = {"fedcore/federated/_intrinsics.py"}


def source_files():
    return [p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor_of(module):
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        found = FLOORS.get(".".join(parts[:end]))
        if found is not None:
            return found
    return None


def imports_of(path):
    """The modules of ours that a file imports, at its top or in a function."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            base = node.module
            # `from fedcore import ir` imports the module fedcore.ir.
            names = [
                f"{base}.{a.name}" if is_module(f"{base}.{a.name}") else base
                for a in node.names
            ]
        else:
            continue
        yield from (n for n in names if n.split(".")[0] in PACKAGES)


def is_module(name):
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


@pytest.mark.parametrize("path", source_files(), ids=module_name)
def test_imports_go_down_only(path):
    module = module_name(path)
    if module in PACKAGES:
        return  # a package's face shows all that is below it
    own = floor_of(module)
    assert own is not None, f"{module} has no floor: say in FLOORS where it stands"
    for imported in imports_of(path):
        if imported in PACKAGES:
            pytest.fail(f"{module} imports the whole of {imported}: name the part")
        floor = floor_of(imported)
        assert floor is not None, f"{imported} has no floor"
        assert floor <= own, (
            f"{module} (floor {own}) imports {imported} (floor {floor})"
        )
        if own == 7:
            assert imported.split(".")[0] in ("fedcore", module.split(".")[0]), (
                f"{module} imports {imported}: fedsim and fedlearn do not know each other"
            )


@pytest.mark.parametrize(
    "path", [p for p in source_files() if "fedlearn" in p.parts], ids=module_name
)
def test_the_parts_of_fedlearn_are_in_order(path):
    module = module_name(path).split(".")
    if len(module) < 2 or module[1] not in FEDLEARN:
        return
    own = FEDLEARN.index(module[1])
    for imported in imports_of(path):
        parts = imported.split(".")
        if parts[0] == "fedlearn" and len(parts) > 1 and parts[1] in FEDLEARN:
            assert FEDLEARN.index(parts[1]) <= own, f"{module} imports {imported}"


@pytest.mark.parametrize("path", source_files(), ids=module_name)
def test_files_are_small(path):
    lines = len(path.read_text().splitlines())
    if str(path.relative_to(ROOT)) not in MAY_BE_LONG:
        assert lines <= 600, f"{lines} lines: split it by idea"


@pytest.mark.parametrize("path", source_files(), ids=module_name)
def test_every_file_says_its_idea(path):
    assert ast.get_docstring(ast.parse(path.read_text())), "no docstring"


@pytest.mark.parametrize(
    "path",
    [p for p in source_files() if p.name == "__init__.py"],
    ids=module_name,
)
def test_packages_say_their_face(path):
    tree = ast.parse(path.read_text())
    names = [
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    assert "__all__" in names


def test_no_drawer_for_odds_and_ends():
    unwanted = ("utils", "common", "helpers", "base")
    tffs_own = {"fedcore/async_utils.py"}
    found = [
        str(p.relative_to(ROOT))
        for p in source_files()
        if any(word in unwanted for word in p.stem.strip("_").split("_"))
    ]
    assert set(found) <= tffs_own
