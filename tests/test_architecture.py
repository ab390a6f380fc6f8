"""Imports point one way, light modules import nothing heavy, and modules stay small; checked in the syntax trees."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
PACKAGE = SOURCE / "alexnet_lab"
MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted(SOURCE.glob("*.py"))
FLOORS = (
    ("__main__", "alexnet_lab"),
    ("commands",),
    ("description",),
    ("launch", "report"),
    ("training", "evaluation"),
    ("runs",),
    ("published",),
    ("config", "loggers", "pictures"),
    ("classifier",),
    ("callbacks", "loss", "models", "optim", "data"),
    (
        "command_line",
        "distributed",
        "errors",
        "files",
        "locks",
        "machine",
        "metric_names",
        "metrics",
        "places",
        "position",
        "revision",
        "rows",
    ),
)
"""From top to bottom: a module imports its own room and lower floors; ground-floor modules import each other."""
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
SEE_A_CONFIGURATION = ("commands", "launch", "report", "runs", "published", "config")
FOR_THE_CORE = ("alexnet_lab.data.spec",)
LIGHT = (
    "callbacks.question",
    "commands.entry",
    "commands.program",
    "config.advice",
    "config.arguments",
    "launch.gpus",
    "launch.job",
    "launch.naming",
    "launch.ownership",
    "launch.planning",
    "launch.resume",
    "launch.search_report",
    "launch.search_space",
    "launch.search_study",
    "launch.slots",
    "launch.snapshot",
    "launch.stopping",
    "launch.ranks",
    "launch.running",
    "launch.sweep",
    "launch.watchdog",
    "runs.folders",
    "runs.metric_rows",
    "runs.result_file",
    "runs.run",
)
HEAVY = ("torch", "torchvision", "torchmetrics", "lightning", "pydantic", "numpy", "wandb", "rich", "PIL", "optuna")
OF_AN_OPTION = tuple(f"alexnet_lab.{name}" for name in ("report.model_card", "models.gradcam", "pictures.gradcam"))
"""Modules that only one choice of an option needs."""
MOST_LINES = 250


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


def part(module: str) -> str:
    """`alexnet_lab.data.spec` -> `data`."""
    return module.split(".")[1] if "." in module else module


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of imports: modules, and names from modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_module_level(tree: ast.Module) -> ast.Module:
    """The tree without the bodies of functions and imports that only type checkers see."""
    body = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return ast.Module(body=[node for node in body if not is_for_type_checkers(node)], type_ignores=[])


def is_for_type_checkers(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def without_functions(tree: ast.Module) -> ast.Module:
    """The tree without the bodies of functions, those of methods included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = []
    return tree


def within(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def is_allowed(mine: str, name: str) -> bool:
    """Whether a module of the room `mine` may import `name`."""
    here, there = FLOOR[mine], FLOOR[part(name)]
    if here == there and part(name) != mine:
        return here == FLOOR["errors"] or within(name, FOR_THE_CORE)
    return there >= here


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_module_imports_only_its_room_and_the_floors_below(path: Path) -> None:
    mine = part(dotted(path))
    ours = [name for name in imports(parsed(path)) if within(name, ("alexnet_lab",))]
    assert [name for name in ours if not is_allowed(mine, name)] == []


def test_rule_refuses_imports_from_above_and_from_the_same_floor() -> None:
    assert is_allowed("launch", "alexnet_lab.training.train")
    assert is_allowed("classifier", "alexnet_lab.data.spec.Batch")
    assert is_allowed("files", "alexnet_lab.locks")
    for mine, name in (
        ("training", "launch.planning"),
        ("launch", "report.page"),
        ("models", "data.module"),
        ("errors", "runs.run"),
    ):
        assert not is_allowed(mine, f"alexnet_lab.{name}")


def test_every_module_belongs_to_a_known_room() -> None:
    assert {part(dotted(path)) for path in MODULES} <= {*FLOOR}
    rooms = FLOOR.keys() - {"alexnet_lab"}  # the package itself
    assert all((PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file() for room in rooms)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_imports_only_the_entry(path: Path) -> None:
    assert set(imports(parsed(path))) == {"alexnet_lab.commands.entry.start"}


@pytest.mark.parametrize("name", LIGHT)
def test_light_module_imports_nothing_heavy_at_module_level(name: str) -> None:
    found = imports(at_module_level(without_functions(parsed(PACKAGE / f"{name.replace('.', '/')}.py"))))
    assert [module for module in found if within(module, HEAVY)] == []


@pytest.mark.parametrize("command", ["evaluate", "export", "predict"])
def test_command_imports_the_modules_of_an_option_where_they_are_used(command: str) -> None:
    found = imports(at_module_level(parsed(PACKAGE / "commands" / f"{command}.py")))
    assert [module for module in found if within(module, OF_AN_OPTION)] == []


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_module_does_not_use_torchvisions_deprecated_decoders(path: Path) -> None:
    assert [name for name in imports(parsed(path)) if within(name, ("torchvision.io",))] == []


def test_plugins_import_nothing_of_ours_at_module_level() -> None:
    """Hydra imports them at each start of every command."""
    paths = sorted((SOURCE / "hydra_plugins").rglob("*.py"))
    assert not (SOURCE / "hydra_plugins" / "__init__.py").exists()
    assert len(paths) >= 3
    for path in paths:
        tree = parsed(path)
        outside = ast.Module(body=[node for node in tree.body if not is_for_type_checkers(node)], type_ignores=[])
        found = imports(without_functions(outside))
        assert [name for name in found if within(name, ("alexnet_lab", *HEAVY))] == []


def test_light_modules_load_nothing_heavy_indirectly() -> None:
    names = ", ".join(f"alexnet_lab.{name}" for name in LIGHT)
    program = f"import sys, {names}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    environment = {"PYTHONPATH": str(SOURCE), "PATH": ""}
    loaded = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True
    )
    assert loaded.stdout.split() == []


def test_training_loads_nothing_that_reads_published_or_other_weights_or_explains_an_evaluation() -> None:
    """Those who use `init=` alone load it; see `training.make_classifier`."""
    known, waiting = {dotted(path): path for path in MODULES}, ["alexnet_lab.training"]
    loaded: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in loaded:
            continue
        loaded.add(name)
        for found in imports(at_module_level(without_functions(parsed(known[name])))):
            waiting += [module for module in (found, found.rpartition(".")[0]) if module in known]
    assert len(loaded) > 50
    unused = ("published", "report", "rows", "evaluation", "runs.references", "runs.initial_weights")
    assert [name for name in loaded if within(name, tuple(f"alexnet_lab.{one}" for one in unused))] == []


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_core_does_not_import_configuration(path: Path) -> None:
    if part(dotted(path)) not in SEE_A_CONFIGURATION:
        assert not [name for name in imports(parsed(path)) if within(name, ("omegaconf", "hydra"))]
        assert "DictConfig" not in path.read_text()


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS], ids=dotted)
def test_module_is_small_and_has_a_specific_name(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES
    assert path.stem not in ("utils", "helpers", "misc", "common")


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_module_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(parsed(path)) or not path.read_text().strip()


def test_test_modules_have_different_names() -> None:
    """Pytest imports them by name alone."""
    names = [path.name for path in Path(__file__).parent.rglob("*.py") if path.name != "conftest.py"]
    assert sorted(set(names)) == sorted(names)
