"""The program `alexnet-lab`: its sub-commands are those of `src/*.py`.

Its own help loads neither Hydra nor a library.
"""

import sys

from alexnet_lab import machine, places
from alexnet_lab.errors import USER_ERROR

COMMANDS = {
    "train": "train a network, continue a run, or sweep over settings (-m)",
    "evaluate": "measure top-1, top-5 and loss of checkpoints",
    "predict": "name the classes of images",
    "prepare": "download, convert and check a dataset",
    "compare": "compare runs in a table or on a page",
    "describe": "print a network layer by layer",
    "export": "write a checkpoint as ONNX, torch.export or state_dict",
    "results": "record runs, and write the results page from them",
}
"""The commands, each with its line of help. A command is the function of this name in the module of this name."""


def main() -> None:
    """Run the sub-command that the command line names."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in ("-h", "--help"):
        machine.print_without_errors()
        print(_help())
    elif name == "--version":
        print(places.version())
    elif name not in COMMANDS:
        problem = f"there is no command {name}" if name else "name a command"
        print(f"error: {problem}; choose from: {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(USER_ERROR)
    else:
        from alexnet_lab.commands.entry import start

        del sys.argv[1]
        start(name)


def _help() -> str:
    lines = [f"  {name:<9} {about}" for name, about in COMMANDS.items()]
    usage = "Usage: alexnet-lab COMMAND [GROUP=NAME] [KEY=VALUE] ...; alexnet-lab COMMAND --help lists what it takes."
    where = "Logs and data are below the current folder, or below ALEXNET_LAB_HOME."
    return "\n".join([usage, "", *lines, "", where])
