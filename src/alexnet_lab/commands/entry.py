"""What every command shares: Hydra's start, the project's root, and errors as a few plain lines.

Nothing here imports torch or lightning, so `--help`, `--cfg job` and wrong options answer at once.
"""

import errno
import functools
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.conf import HydraConf
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alexnet_lab import files, machine
from alexnet_lab.config import arguments
from alexnet_lab.config.advice import advice, nearest
from alexnet_lab.config.flags import in_front
from alexnet_lab.config.help import requested_help
from alexnet_lab.config.keys import check_choices, check_keys
from alexnet_lab.errors import FAILED, FINISHED, INTERRUPTED, USER_ERROR, RunFailed, RunInterrupted, UserError
from alexnet_lab.files import ROOT
from alexnet_lab.launch import naming, slurm
from alexnet_lab.runs import folders
from alexnet_lab.runs.result_file import FULL_DISK

REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
    *(errno.ELOOP, *FULL_DISK),
)
"""Errors of a place on the disk that the user has named."""


def command(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a function of a composed configuration into a program.

    The program works in the project's root, whatever folder it is started from. A `UserError`, an error of Hydra's or
    of OmegaConf's is printed without a traceback and ends it with status 2; any other exception keeps its traceback.
    `HYDRA_FULL_ERROR=1` shows the traceback of every error.
    """

    def decorate(function: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @functools.wraps(function)
        def program() -> None:
            machine.print_any_text()
            with_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
            if _print_help(config_name, with_traceback):
                return
            # For the processes of other launchers, which do not begin with this script, and work in the project's root.
            others = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
            paths = [str(ROOT / "src"), *map(os.path.abspath, others)]
            caller = _caller()
            os.chdir(ROOT)
            os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
            # Hydra prints errors itself unless this is set; here they are printed by `report`.
            os.environ["HYDRA_FULL_ERROR"] = "1"
            # Every composition copies this store, which holds the settings of all plugins; the copy is never changed.
            ConfigStore.__deepcopy__ = lambda store, memo: store  # type: ignore[attr-defined]
            start = hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name=config_name)
            try:
                arguments.prepare(caller)
                start(_quiet(function, config_name, with_traceback))()
            except RunFailed as error:  # the first job that failed, when the sweep has ended
                status = _status_of_sweep()
                if status != FAILED:  # else the sweep's table has printed each reason
                    print(f"error: {error}", file=sys.stderr)
                sys.exit(status or FAILED)
            except RunInterrupted:
                slurm.requeue()
                sys.exit(INTERRUPTED)
            except KeyboardInterrupt:  # of a command that is no run
                print("interrupted", file=sys.stderr)
                sys.exit(INTERRUPTED)
            except SystemExit as end:
                if end.code != INTERRUPTED:
                    raise
                slurm.requeue()
                # Rank 0 tells how the run ended; where Slurm kills at the first bad status, another would cut it short.
                sys.exit(FINISHED if slurm.rank() else INTERRUPTED)
            except (UserError, HydraException, OmegaConfBaseException) as error:
                report(error, config_name, with_traceback)
            except (OSError, ValueError, TypeError) as error:
                if not _is_of_hydra(error):
                    raise
                # A run's folder that it cannot make, or an override that it cannot apply.
                reason = _refused(error) if isinstance(error, OSError) else error
                report(reason, config_name, with_traceback)
            if status := _status_of_sweep():
                sys.exit(status)

        return program

    return decorate


def _status_of_sweep() -> int:
    sweep = sys.modules.get("alexnet_lab.launch.sweep")  # loaded where there was a sweep
    return sweep.exit_status() if sweep else FINISHED


def _print_help(config_name: str, with_traceback: bool) -> bool:
    """Put the flags in front, and print the command's help if it was asked for; whether it was."""
    try:
        sys.argv[1:] = in_front(sys.argv[1:], lambda name: nearest(name, str(ROOT / "conf"), config_name))
        text = requested_help(ROOT / "conf", config_name)
    except UserError as error:
        report(error, config_name, with_traceback)
    else:
        if text is not None:
            print(text)
            return True
    return False


def _caller() -> Path:
    """The folder that the user is in; the project where that folder is gone."""
    try:
        return Path.cwd()
    except OSError:
        return ROOT


def register_resolvers() -> None:
    """Make known to OmegaConf what `conf/` computes: a run's names and folder, and what Slurm gives."""
    # Kept once it is known: a job of another launcher composes anew, and its sweep is still the same.
    OmegaConf.register_new_resolver("run_name", naming.run_name, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("run_folder", naming.run_folder, replace=True)
    OmegaConf.register_new_resolver("job_name", naming.job_name, replace=True)
    OmegaConf.register_new_resolver("slurm_nodes", slurm.nodes, replace=True)
    OmegaConf.register_new_resolver("slurm_tasks_per_node", slurm.tasks_per_node, replace=True)
    OmegaConf.register_new_resolver("run_title", naming.run_title, replace=True)
    OmegaConf.register_new_resolver("short_name", naming.short_name, replace=True)
    OmegaConf.register_new_resolver("first", naming.first, replace=True)


def _is_of_hydra(error: BaseException) -> bool:
    """Whether Hydra raised it, and not the function of the command."""
    frames = {frame.filename for frame in traceback.extract_tb(error.__traceback__)[1:]}
    return not any(Path(name).is_relative_to(Path(__file__).parents[1]) for name in frames - {__file__})


def _quiet(
    function: Callable[[DictConfig], Any], config_name: str, with_traceback: bool
) -> Callable[[DictConfig], Any]:
    """Report a user's error before Hydra adds its own line about the job that raised it."""

    @functools.wraps(function)
    def job(config: DictConfig) -> Any:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return _run_elsewhere(function, config, config_name)
        hydra_config = HydraConfig.get()
        try:
            if hydra_config.job.config_name == config_name:
                _check(config, hydra_config, ROOT / "conf" / f"{config_name}.yaml")
            return function(config)
        except (UserError, HydraException, OmegaConfBaseException) as error:
            return report(error, config_name, with_traceback)
        except OSError as error:
            if error.filename is None or error.errno not in REFUSED:
                raise
            status = FAILED if error.errno in FULL_DISK else USER_ERROR
            return report(_refused(error), config_name, with_traceback, status)

    return job


def _check(config: DictConfig, hydra_config: HydraConf, primary: Path) -> None:
    try:
        check_choices(hydra_config.overrides.task)
        check_keys(config, primary)
    except UserError:
        with suppress(OSError):
            Path(hydra_config.runtime.output_dir).rmdir()  # Hydra made it; it goes when nothing is in it
        raise


def _refused(error: OSError) -> UserError:
    return UserError(f"{error.filename} cannot be written: {files.reason_of(error)}")


def _run_elsewhere(function: Callable[[DictConfig], Any], config: DictConfig, config_name: str) -> Any:
    """Run a job of another launcher than ours, which calls this in a process of Slurm's or Ray's.

    Raises:
        RunFailed: it did not end well. The launcher hands that to the sweeper; the end of its process it would not.
    """
    from alexnet_lab.launch.sweep import NOT_FOR_JOBS, OF_THE_SWEEP
    from alexnet_lab.runs import result_file

    os.chdir(ROOT)
    # Only submitit's processes are ranks of their step; Ray may have been started by another one.
    gone = OF_THE_SWEEP if "SUBMITIT_EXECUTOR" in os.environ else NOT_FOR_JOBS
    for name in [name for name in os.environ if name.startswith(gone)]:
        del os.environ[name]
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        return function(config)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        raise RunFailed(f"{folder.name} failed: {advise(error, config_name)}") from None
    except SystemExit as end:
        if end.code == INTERRUPTED:
            slurm.requeue()
        result = result_file.read_end(folder / folders.RESULT) if (folder / folders.CONFIG).exists() else None
        result = result or {}
        why = result.get("error") or f"it ended with status {end.code}; what it printed tells why"
        raise RunFailed(f"{folder.name} {result.get('status', 'failed')}: {why}") from None


def report(error: Exception, config_name: str, with_traceback: bool = False, status: int = USER_ERROR) -> NoReturn:
    """Print what is wrong and what would be right, and end the program with `status`."""
    if with_traceback:
        raise error
    print(f"error: {advise(error, config_name)}", file=sys.stderr)
    sys.exit(status)


def advise(error: Exception, config_name: str) -> str:
    return advice(error, str(ROOT / "conf"), config_name)


# When this module is imported, and not when a program starts: the processes of other launchers only unpickle a job.
register_resolvers()
