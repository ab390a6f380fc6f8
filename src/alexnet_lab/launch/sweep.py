"""Runs the jobs of a sweep: each is a process in a session and a slot of its own, watched until it ends.

Imports nothing heavy.
"""

import atexit
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from alexnet_lab import locks, machine
from alexnet_lab.callbacks import question
from alexnet_lab.errors import FAILED, FINISHED, INTERRUPTED, USER_ERROR, RunInterrupted, UserError
from alexnet_lab.launch import ending, environment, job, ownership, planning, ranks, snapshot
from alexnet_lab.launch.slots import Slot, Slots, gpus_of, usable_gpus
from alexnet_lab.launch.stopping import PassedOn
from alexnet_lab.launch.sweep_job import Group, Job, Process, ended_state, top1_by_epoch, user_error
from alexnet_lab.launch.sweep_view import View
from alexnet_lab.runs import folders, result_file
from alexnet_lab.runs.metric_rows import read_rows

CODE = ".code"
POLL_SECONDS = 0.1
SAVE_SECONDS = 20.0
"""The time for a job that took too long to save its state."""
QUESTION = ".question"
"""In the folder of a trial, while it runs."""
OF_THE_SWEEP = (question.VARIABLE, "WANDB_RUN_ID", "WANDB_RESUME", "WANDB_SWEEP_", "HYDRA_FULL_ERROR")
"""Beginnings of variables of the sweep's process that its jobs must not inherit."""
NOT_FOR_JOBS = (*environment.FOREIGN, *OF_THE_SWEEP)
MADE_BY_A_LAUNCH = {CODE, folders.LOCK, f"{folders.LOCK}{locks.MARKER}", "multirun.yaml", "optuna.journal"}

unfinished: list[Job] = []
"""Jobs of this process's sweep that ended without being finished, see `exit_status`."""


class Sweep:
    """Runs jobs below `folder`, `jobs_at_once` at a time, with a copy of the code as it is now.

    Raises:
        UserError: another launcher works in the folder, a setting is out of range, or torchrun or srun has started
            this process as one of several.
    """

    def __init__(
        self, folder: Path, jobs_at_once: int, devices_per_job: int | None, job_timeout: float | None, fail_fast: bool
    ) -> None:
        limits = {"jobs_at_once": jobs_at_once, "devices_per_job": devices_per_job, "job_timeout": job_timeout}
        for name, value in limits.items():
            if value is not None and value <= 0:
                raise UserError(f"hydra.launcher.{name} must be above 0, got {value}")
        if planning.started_from_outside():
            raise UserError("a sweep starts the ranks of its jobs itself: run it without torchrun or srun")
        self.folder, self.code = folder, folder / CODE
        with ownership.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = ownership.lock(folder)
            atexit.register(self._discard_if_new)
            snapshot.take(self.code)
        self._per_job, self._timeout, self._fail_fast = devices_per_job, job_timeout, fail_fast
        self._slots = Slots(jobs_at_once, machine.cores())
        self._jobs: dict[Path, Job] = {}
        self._lifeline, self._held = os.pipe()  # when this process ends, `_held` is closed and the jobs end

    def job(self, folder: Path, overrides: Sequence[str], plan: Callable[[], planning.Plan | None]) -> Job:
        """The job of `folder`; the same object if a sweeper requests the same settings twice.

        Raises:
            UserError: `plan` raises it, or the folder contains a run that is not continued, or is another job's.
        """
        if not Path(os.path.normpath(folder)).is_relative_to(self.folder) or folder == self.folder:
            raise UserError(f"hydra.sweep.subdir must be a folder in that of the sweep, got {folder}")
        if folder not in self._jobs:
            todo = plan()
            if todo and not todo.continues and (folder / folders.CONFIG).exists():
                raise ownership.taken(folder)
            gpus = self._gpus_of(todo.settings["trainer"]) if todo else 0
            new = Job(folder, overrides, todo, gpus, state="waiting" if todo else ended_state(folder))
            new.steps_before = max((row.get("step", 0.0) for row in read_rows(folder / folders.METRICS)), default=0.0)
            self._jobs[folder] = new
        known = self._jobs[folder]
        if sorted(known.overrides) != sorted(overrides):
            raise UserError(
                f"two jobs of the sweep would have the folder {folder.name}: [{' '.join(known.overrides)}] and "
                f"[{' '.join(overrides)}]\nhydra.sweep.subdir must tell them apart"
            )
        return known

    def _gpus_of(self, trainer: Mapping[str, Any]) -> int:
        usable = usable_gpus(trainer)
        self._slots.offer(usable)
        return gpus_of(trainer, len(usable), self._per_job)

    def _discard_if_new(self) -> None:
        """Remove the sweep's folder if no job was ever started there, e.g. after a wrong option."""
        if {path.name for path in self.folder.iterdir()} <= MADE_BY_A_LAUNCH:
            ownership.discard(self.folder)

    def run(self, jobs: Sequence[Job], group: Group | None = None) -> None:
        """Run the waiting `jobs` until all have ended; a job that fails does not affect the others.

        `group`: where a search launches them as trials.

        Raises:
            RunInterrupted: Ctrl-C or a signal asked the sweep to stop; its jobs saved what they had.
            RunFailed: a job failed and `fail_fast` is set.
        """
        todo = [one for one in dict.fromkeys(jobs) if one.state == "waiting"]
        self._prunes = group.prunes if group else None
        processes: list[Process] = []
        stop = PassedOn(processes)
        view = View(self.folder, list(self._jobs.values()) if group is None else jobs, group)
        try:
            while any(one.state in ("waiting", "running") for one in todo):
                failed = self._fail_fast and any(one.state == "failed" for one in todo)
                if stop.requested or failed:
                    self._call_off(todo)
                self._start_what_fits(todo, processes, stop)
                for one in todo:
                    if one.state == "running":
                        self._look_after(one)
                view.show()
                time.sleep(POLL_SECONDS)
        finally:
            for one in todo:
                if one.state == "running":
                    _kill(one)
            stop.close()
            view.close()
        unfinished.extend(one for one in todo if one.state not in result_file.ENDED_WELL)
        if stop.requested:
            raise RunInterrupted
        if self._fail_fast and any(one.state == "failed" for one in todo):
            raise next(one.failure for one in todo if one.state == "failed" and one.failure)

    def _call_off(self, todo: Sequence[Job]) -> None:
        for one in todo:
            if one.state == "waiting":
                one.state, one.reason = "skipped", "the sweep ended before"
            elif one.state == "running":
                assert one.process is not None
                one.process.terminate()  # it saves and ends; a second SIGTERM is not sent

    def _start_what_fits(self, todo: Sequence[Job], processes: list[Process], stop: PassedOn) -> None:
        for one in todo:
            if one.state == "waiting" and not stop.requested:
                one.slot = self._slots.take(one.gpus)
                if one.slot is None:
                    return
                one.question = question.Question(one.folder / QUESTION) if self._prunes else None
                processes.append(self._start(one, one.slot))

    def _start(self, one: Job, slot: Slot) -> Process:
        assert one.plan is not None
        one.folder.mkdir(parents=True, exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(NOT_FOR_JOBS)}
        paths = (str(self.code), environment.get("PYTHONPATH"))
        environment |= {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        environment |= {ranks.LIFELINE: str(self._lifeline)}
        if one.question:
            one.question.path.unlink(missing_ok=True)
            environment[question.VARIABLE] = str(one.question.path)
        if slot.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(slot.gpus)
        with (one.folder / folders.JOB_LOG).open("a") as log:
            one.process = Process(
                job.COMMAND,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[self._lifeline],
                start_new_session=True,
                text=True,
            )
        assert one.process.stdin is not None
        with suppress(BrokenPipeError), one.process.stdin as pipe:  # `_look_after` notices a process that has died
            pipe.write(job.as_text(one.plan, slot.cores))
        one.state, one.started = "running", time.monotonic()
        return one.process

    def _look_after(self, one: Job) -> None:
        assert one.process is not None
        now = time.monotonic()
        if one.process.has_ended():
            _kill(one)
            self._conclude(one, one.process.wait())
        elif one.kill_at is not None and now > one.kill_at:
            _kill(one)
        elif one.kill_at is None and self._timeout is not None and now > one.started + self._timeout:
            one.reason = f"did not end within hydra.launcher.job_timeout={self._timeout:g} s"
            one.process.terminate()
            one.kill_at = now + SAVE_SECONDS
        elif one.question and (epoch := one.question.asked()) is not None:
            assert self._prunes is not None
            seen = {number: top1 for number, top1 in top1_by_epoch(one.folder).items() if number <= epoch}
            one.question.answer(self._prunes(one, seen))

    def _conclude(self, one: Job, status: int) -> None:
        assert one.slot is not None
        assert one.process is not None
        self._slots.give_back(one.slot)
        one.ended = time.monotonic()
        if one.question:
            one.question.path.unlink(missing_ok=True)
        result = result_file.read_result(one.folder / folders.RESULT) or {}
        recorded = result.get("status")
        if status == FINISHED or recorded in result_file.ENDED_WELL:  # the process may still fail as it ends
            one.state = "pruned" if recorded == "pruned" else "finished"
        elif one.process.asked_to_stop and not one.reason:
            one.state, one.reason = "interrupted", "the sweep ended before"
        elif (status == INTERRUPTED or result.get("status") == "interrupted") and not one.reason:
            of_time = result.get("reason") == "max_time"
            one.state, one.reason = "interrupted", "trainer.max_time is over" if of_time else "it was asked to stop"
        else:
            one.state = "failed"
            killed = result_file.KILLED if status == -signal.SIGKILL else ""
            one.reason = one.reason or result.get("error") or killed or ending.how_it_ended(status)
            if status == USER_ERROR:
                one.reason = user_error(one.folder / folders.JOB_LOG) or one.reason
            elif result.get("status") != "failed" and (one.folder / folders.CONFIG).exists():
                last = ending.last_lines(one.folder / folders.JOB_LOG)
                result["error"] = "\n".join([f"{one.reason}; the last lines of {folders.JOB_LOG}:", *last])
                ending.write(one.folder, **{**result, "status": "failed"})


def exit_status() -> int:
    """The exit status of the command when its sweep has ended. Interrupted jobs have not failed."""
    states = {one.state for one in unfinished}
    return FAILED if states - {"interrupted"} else INTERRUPTED if states else FINISHED


def _kill(one: Job) -> None:
    """Kill the job's process, its ranks, and the processes that those have started."""
    assert one.process is not None
    with suppress(ProcessLookupError):
        os.killpg(one.process.pid, signal.SIGKILL)
