"""A sweep and its continuation on a minimal file system, simulated by overriding the C library."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no C compiler"),
]


def test_sweep_runs_and_continues_where_links_locks_and_fsync_are_refused(script: Any, tmp_path: Path) -> None:
    library, place = tmp_path / "odd.so", tmp_path / "odd"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-o", library, Path(__file__).with_name("odd_file_system.c")], check=True
    )
    environment = script.environment | {"LD_PRELOAD": str(library), "ODD_FILE_SYSTEM": str(place)}
    small = ("model=lenet", "data=synthetic", "data.train_size=32", "data.val_size=16", "data.test_size=16")
    sweep = (
        "-m",
        *small,
        "trainer=cpu",
        "resume=auto",
        "run=odd",
        f"hydra.sweep.dir={place}",
        "hydra.sweep.subdir=job",
    )
    for epochs in (2, 3):
        ended = script.run(*sweep, f"trainer.max_epochs={epochs}", env=environment, fresh=True)
        assert ended.returncode == 0, ended.stderr
        folder = place / "job"
        result = json.loads((folder / "result.json").read_text())
        assert result["status"] == "finished"
        assert (folder / "checkpoints/best.ckpt").exists()
        assert [str(path) for path in place.rglob("*") if path.suffix in (".held", ".writing", ".old", ".lock")] == []
    assert f"{place} has no file locks (No locks available); using the marker file .lock.held instead" in ended.stderr
