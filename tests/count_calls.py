"""Counts the Python calls of --help and --cfg of src/train.py, in forks of one interpreter that has loaded Hydra.

`python count_calls.py '{"NAME": [ARGUMENT, ...], ...}' EXTRAS...` prints JSON: `hydra`, the calls of importing Hydra;
for each of EXTRAS (`all extras`: as installed; `no extras`: without the plugins of others) and each name `calls` since
the interpreter's start, the exit `status`, and `loaded`, the top-level modules.
"""

import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

calls = 0


def count(frame: Any, event: str, argument: Any) -> None:
    global calls
    calls += event == "call"


def hide_plugins_of_others() -> None:
    import hydra_plugins

    hydra_plugins.__path__ = [str(ROOT / "src" / "hydra_plugins")]


def ask(arguments: list[str], extras: str) -> dict[str, Any]:
    """The cost of an answer, measured in a separate process; the output is dropped."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        with open(os.devnull, "w") as nowhere, os.fdopen(write_end, "w") as pipe:
            sys.stdout = sys.stderr = nowhere
            sys.argv = ["src/train.py", *arguments]
            status: Any = 0
            if extras == "no extras":
                hide_plugins_of_others()
            sys.setprofile(count)
            try:
                runpy.run_path(str(ROOT / "src" / "train.py"), run_name="__main__")
            except SystemExit as end:
                status = end.code
            sys.setprofile(None)
            loaded = sorted({name.partition(".")[0] for name in sys.modules})
            json.dump({"calls": calls, "status": status, "loaded": loaded}, pipe)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        answer: dict[str, Any] = json.load(pipe)
    os.waitpid(child, 0)
    return answer


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "src"))
    sys.setprofile(count)
    from hydra import compose, initialize_config_dir  # noqa: F401

    sys.setprofile(None)
    questions = json.loads(sys.argv[1])
    answers = {extras: {name: ask(asked, extras) for name, asked in questions.items()} for extras in sys.argv[2:]}
    print(json.dumps({"hydra": calls, **answers}))
