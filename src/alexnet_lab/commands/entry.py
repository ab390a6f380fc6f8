"""Shared by all commands: starts Hydra, changes to the home and reports errors in a few plain lines.

Imports neither torch nor lightning, so that `--help`, `--cfg job` and wrong options answer at once.
"""

import errno
import functools
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
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

from alexnet_lab import command_line, errors, files, machine, places
from alexnet_lab.config import arguments, variants
from alexnet_lab.config.advice import advice, nearest
from alexnet_lab.config.flags import in_front
from alexnet_lab.config.help import requested_help
from alexnet_lab.config.keys import check_choices, check_keys
from alexnet_lab.errors import FAILED, FINISHED, INTERRUPTED, USER_ERROR, RunFailed, RunInterrupted, UserError
from alexnet_lab.launch import naming, slurm
from alexnet_lab.runs import folders
from alexnet_lab.runs.result_file import FULL_DISK

REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
    *(errno.ELOOP, *FULL_DISK),
)
"""Errors caused by a path that the user has named."""


def start(name: str) -> None:
    """Run the command `name`: the function of this name in `alexnet_lab.commands.<name>`, imported when needed."""

    def main(config: DictConfig) -> Any:
        others = variants.composed(name, places.CONF / f"{name}.yaml")  # before torch is imported
        return getattr(import_module(f"alexnet_lab.commands.{name}"), name)(config, *others)

    main.__module__ = f"alexnet_lab.commands.{name}"  # Hydra's name of the job is the last part
    command(name)(main)()


def command(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Turn a function of a composed configuration into a program.

    The program works in the home (`places`), wherever it is started. A `UserError` or an error of Hydra or OmegaConf is
    printed without a traceback and ends the program with status 2. Any other exception keeps its traceback.
    `HYDRA_FULL_ERROR=1` shows the traceback of every error.
    """

    def decorate(function: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @functools.wraps(function)
        def program() -> None:
            machine.print_without_errors()
            with_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
            os.environ[command_line.HEAD] = arguments.command_head(config_name)
            if _print_help(config_name, with_traceback):
                return
            places.set_imports_of_processes()
            caller = _caller()
            # Hydra would print errors itself; here `report` prints them.
            os.environ["HYDRA_FULL_ERROR"] = "1"
            # Each composition would copy this store of all plugin settings; the copy is never changed.
            ConfigStore.__deepcopy__ = lambda store, memo: store  # type: ignore[attr-defined]
            run = hydra.main(version_base="1.3", config_path=str(places.CONF), config_name=config_name)
            try:
                places.enter_home(caller)
                arguments.prepare(caller or places.home(), config_name)
                sys.argv[1:] = variants.split(config_name, sys.argv[1:])
                run(_quiet(function, config_name, with_traceback))()
            except RunFailed as error:  # of a run, or after a sweep, of its first failed job
                status = _sweep_status()
                if status != FAILED:  # otherwise the sweep's table has already printed the reasons
                    print(f"error: {error}", file=sys.stderr)
                sys.exit(status or FAILED)
            except RunInterrupted:
                slurm.requeue()
                sys.exit(INTERRUPTED)
            except KeyboardInterrupt:  # in a command other than train
                print("interrupted", file=sys.stderr)
                sys.exit(INTERRUPTED)
            except SystemExit as end:
                if end.code != INTERRUPTED:
                    raise
                slurm.requeue()
                # Rank 0 reports the status. Slurm may kill a step at its first non-zero status: other ranks return 0.
                sys.exit(FINISHED if slurm.here().rank else INTERRUPTED)
            except (UserError, HydraException, OmegaConfBaseException) as error:
                report(error, config_name, with_traceback)
            except (OSError, ValueError, TypeError) as error:
                if not _raised_by_hydra(error):
                    raise
                # Hydra cannot create a run's folder, or cannot apply an override.
                report(_refused(error) if isinstance(error, OSError) else error, config_name, with_traceback)
            if status := _sweep_status():
                sys.exit(status)

        return program

    return decorate


def _sweep_status() -> int:
    sweep = sys.modules.get("alexnet_lab.launch.sweep")  # loaded only if there was a sweep
    return sweep.exit_status() if sweep else FINISHED


def _print_help(config_name: str, with_traceback: bool) -> bool:
    """Move the flags to the front of the command line; print the command's help if requested and return True."""
    try:
        sys.argv[1:] = in_front(sys.argv[1:], lambda name: nearest(name, str(places.CONF), config_name))
        text = requested_help(places.CONF, config_name)
    except UserError as error:
        report(error, config_name, with_traceback)
    else:
        if text is not None:
            print(text)
            return True
    return False


def _caller() -> Path | None:
    """The user's working folder; None if it no longer exists."""
    try:
        return Path.cwd()
    except OSError:
        return None


def register_resolvers() -> None:
    """Register the resolvers that `conf/` uses: names and folder of a run, values from Slurm, commands."""
    # Cached: a job of another launcher composes again, but belongs to the same sweep.
    OmegaConf.register_new_resolver("run_name", naming.run_name, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("run_folder", naming.run_folder, replace=True)
    OmegaConf.register_new_resolver("job_name", naming.job_name, replace=True)
    # The help is a `string.Template`.
    OmegaConf.register_new_resolver("command", lambda name: command_line.command(name).replace("$", "$$"), replace=True)
    OmegaConf.register_new_resolver("slurm_nodes", lambda: slurm.here().nodes, replace=True)
    OmegaConf.register_new_resolver("slurm_tasks_per_node", lambda: slurm.here().tasks_per_node, replace=True)
    OmegaConf.register_new_resolver("run_title", naming.run_title, replace=True)
    OmegaConf.register_new_resolver("short_name", naming.short_name, replace=True)
    OmegaConf.register_new_resolver("first", naming.first, replace=True)


def _raised_by_hydra(error: BaseException) -> bool:
    """Whether Hydra raised the error, not the command's function."""
    frames = {frame.filename for frame in traceback.extract_tb(error.__traceback__)[1:]}
    return not any(Path(name).is_relative_to(places.PACKAGE) for name in frames - {__file__})


def _quiet(
    function: Callable[[DictConfig], Any], config_name: str, with_traceback: bool
) -> Callable[[DictConfig], Any]:
    """Report a user's error before Hydra adds its own line about the failed job."""

    @functools.wraps(function)
    def job(config: DictConfig) -> Any:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return _run_elsewhere(function, config, config_name)
        hydra_config = HydraConfig.get()
        try:
            if hydra_config.job.config_name == config_name:
                _check(config, hydra_config, places.CONF / f"{config_name}.yaml")
            with errors.fitting_libraries():
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
        check_choices(hydra_config.overrides.task, primary.stem)
        check_keys(config, primary)
    except UserError:
        with suppress(OSError):
            Path(hydra_config.runtime.output_dir).rmdir()  # Hydra has created it; only an empty folder is removed
        raise


def _refused(error: OSError) -> UserError:
    is_default = isinstance(error.filename, str) and not os.path.isabs(error.filename)  # what a user types is absolute
    path, remedy = (os.path.abspath(error.filename), f"\n{places.ELSEWHERE}") if is_default else (error.filename, "")
    return UserError(f"{path} cannot be written: {files.reason_of(error)}{remedy}")


def _run_elsewhere(function: Callable[[DictConfig], Any], config: DictConfig, config_name: str) -> Any:
    """Run a job of another launcher, which calls this function in a process of Slurm or Ray.

    Raises:
        RunFailed: the job failed. The launcher passes an exception to the sweeper, but not an exit status.
    """
    from alexnet_lab.launch.sweep import NOT_FOR_JOBS, OF_THE_SWEEP
    from alexnet_lab.runs import result_file

    home = HydraConfig.get().runtime.cwd
    places.work_in(Path(home), home)
    # Only submitit's processes are ranks of a Slurm step; Ray may have been started inside another step.
    removed = OF_THE_SWEEP if "SUBMITIT_EXECUTOR" in os.environ else NOT_FOR_JOBS
    for name in [name for name in os.environ if name.startswith(removed)]:
        del os.environ[name]
    slurm.here.cache_clear()
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        return function(config)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        raise RunFailed(f"{folder.name} failed: {advise(error, config_name)}") from None
    except SystemExit as end:
        if end.code == INTERRUPTED and slurm.asked and "SUBMITIT_EXECUTOR" not in os.environ:
            raise RunInterrupted("signal") from None  # this process was asked to stop, and the sweep with it
        if end.code == INTERRUPTED:
            slurm.requeue()
        result = result_file.read_end(folder / folders.RESULT) if (folder / folders.CONFIG).exists() else None
        result = result or {}
        reason = result.get("error") or f"exit status {end.code}; see its output for the reason"
        raise RunFailed(f"{folder.name} {result.get('status', 'failed')}: {reason}") from None


def report(error: Exception, config_name: str, with_traceback: bool = False, status: int = USER_ERROR) -> NoReturn:
    """Print the error with its remedy, and end the program with `status`."""
    if with_traceback:
        raise error
    print(f"error: {advise(error, config_name)}", file=sys.stderr)
    sys.exit(status)


def advise(error: Exception, config_name: str) -> str:
    return advice(error, str(places.CONF), config_name)


# On import, not at program start: processes of other launchers only unpickle a job.
register_resolvers()
