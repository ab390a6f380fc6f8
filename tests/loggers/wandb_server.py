"""Stand-ins for W&B: a server, its processes, an environment without a login, and the folder of an offline run."""

import contextlib
import functools
import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import wandb

from alexnet_lab.loggers.wandb_service import end_service

WANDB = Path(sys.executable).with_name("wandb")
KEY = "0123456789" * 4
ARTIFACT_FILES = "/artifact/"


def wandb_processes() -> set[int]:
    """W&B's processes that this process has started and not yet ended."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            number_and_name, _, facts = status.read_text().rpartition(")")
        except OSError:  # it has ended since it was listed
            continue
        number, _, name = number_and_name.partition(" (")
        if int(facts.split()[1]) == os.getpid() and name.startswith("wandb"):
            found.add(int(number))
    return found


class ServedRun(NamedTuple):
    """A run that the server's project has; the values of its config and summary as W&B keeps them."""

    id: str
    config: dict[str, Any]
    summary: dict[str, Any]
    history: list[dict[str, Any]]
    state: str = "finished"

    @property
    def node(self) -> dict[str, Any]:
        texts = {"description": "", "notes": "", "systemMetrics": "{}", "projectId": "1", "internalId": "1"}
        nothing = dict.fromkeys(("sweepName", "group", "jobType", "commit"))
        times = dict.fromkeys(("createdAt", "heartbeatAt"), "2026-01-01T00:00:00")
        config = json.dumps({key: {"value": value} for key, value in self.config.items()})
        known = {"id": self.id, "name": self.id, "displayName": f"run {self.id}", "state": self.state, "tags": []}
        counts = {"historyLineCount": len(self.history), "readOnly": False, "user": {"name": "u", "username": "u"}}
        return texts | nothing | times | known | counts | {"config": config, "summaryMetrics": json.dumps(self.summary)}

    @property
    def resumed(self) -> dict[str, Any]:
        """What is sent to a client that continues the run."""
        tail = json.dumps([json.dumps(self.history[-1])])
        lines = {"logLineCount": 0, "eventsLineCount": 0, "eventsTail": "[]", "historyTail": tail}
        return self.node | lines | {"tags": ["tag"], "wandbConfig": json.dumps({"t": 1})}


class Server(ThreadingHTTPServer):
    """The part of W&B's server that records a run, and that has a project with `runs` and saved `views`.

    It `answers`, `refuses` (403), is `silent` or `drops` connections.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.manner = "answers"
        self.closing = threading.Event()
        self.history: list[dict[str, Any]] = []
        self.exit_codes: list[int] = []
        self.run_names: set[str] = set()
        self.runs: list[ServedRun] = []  # those of its project
        self.views: list[dict[str, Any]] = []  # the variables of each one saved
        self.tables: dict[str, dict[str, Any]] = {}  # by the name of their file in an artifact
        self.changes: list[dict[str, Any]] = []  # the variables of each request to create or change a run

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None: ...

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.manner == "silent":
            self.server.closing.wait()
            return
        if self.server.manner == "drops":
            self.close_connection = True
            return
        if self.server.manner == "refuses":
            self.reply(403, {})
            return
        content = json.loads(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
        self.reply(200, self.query(content) if self.path == "/graphql" else self.stream(content))

    def do_PUT(self) -> None:
        if self.server.manner == "drops":
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith(ARTIFACT_FILES):
            self.server.tables[self.path.removeprefix(ARTIFACT_FILES)] = json.loads(body)
        self.reply(200, {})

    def stream(self, content: dict[str, Any]) -> dict[str, Any]:
        rows = content.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
        self.server.history += [json.loads(row) for row in rows]
        if content.get("complete"):
            self.server.exit_codes.append(content["exitcode"])
        return {"limits": {}}

    def query(self, content: dict[str, Any]) -> dict[str, Any]:
        given = content.get("variables") or {}
        operation = content.get("operationName")
        if answer := self.of_artifact(operation, given) or self.of_project(content["query"], given):
            return {"data": answer}
        if operation == "UpsertBucket":
            self.server.run_names.add(given["name"])
            self.server.changes.append(given)
            project = {"id": "p", "name": "project", "entity": {"id": "e", "name": "entity"}}
            known = any(run.id == given["name"] for run in self.server.runs)
            bucket = {"id": "b", "name": given["name"], "displayName": "run", "historyLineCount": 0, "project": project}
            return {"data": {"upsertBucket": {"bucket": bucket, "inserted": not known}}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.server.url}/file"} for name in given["files"]]
            return {"data": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}}
        return {"data": {"model": None, "viewer": {"id": "u", "entity": "entity", "username": "user", "flags": "{}"}}}

    def of_artifact(self, operation: str | None, given: dict[str, Any]) -> dict[str, Any] | None:
        """The answer to a request of an upload; None to any other."""
        address = {"uploadUrl": f"{self.server.url}/file", "uploadHeaders": []}
        match operation:
            case "CreateArtifact":
                sequence = {"id": "s", "latestArtifact": None}
                return {"createArtifact": {"artifact": {"id": "a", "state": "PENDING", "artifactSequence": sequence}}}
            case "CreateArtifactManifest":
                manifest = {"id": "m", "file": {"id": "f", "name": "n", "displayName": "d", **address}}
                return {"createArtifactManifest": {"artifactManifest": manifest}}
            case "CreateArtifactFiles":
                files = [
                    {"id": "f", "name": name, "displayName": name, "storagePath": "", "artifact": {"id": "a"}}
                    | {"uploadUrl": self.server.url + ARTIFACT_FILES + name, "uploadHeaders": []}
                    | {"uploadMultipartUrls": None}
                    for name in (file["name"] for file in given["input"]["artifactFiles"])
                ]
                return {"createArtifactFiles": {"files": {"edges": [{"node": file} for file in files]}}}
            case "CommitArtifact":
                return {"commitArtifact": {"artifact": {"id": "a", "digest": "d"}}}
        return None

    def of_project(self, query: str, given: dict[str, Any]) -> dict[str, Any] | None:
        """The answer to a request for the project's runs, or to save a view; None to any other."""
        if "upsertView" in query:
            self.server.views.append(given)
            return {"upsertView": {"view": {"id": "v", "name": given["name"]}, "inserted": True}}
        if "runs(" in query:
            nodes = [{"node": run.node, "cursor": "c"} for run in self.server.runs]
            page = {"edges": nodes, "totalCount": len(nodes), "pageInfo": {"endCursor": "c", "hasNextPage": False}}
            return {"project": {"internalId": "1", "runCount": len(nodes), "readOnly": False, "runs": page}}
        if "mutation" in query:
            return None
        run = next(
            (run for run in self.server.runs if run.id in (given.get("name"), given.get("runName"), given.get("run"))),
            None,
        )
        if run is None:
            return {"project": {"artifact": None, "run": None}} if "project(" in query else None
        if "RunResumeStatus" in query:
            return {"model": {"id": "p", "name": "p", "entity": {"id": "e", "name": "e"}, "bucket": run.resumed}}
        if "historyKeys" in query and "summaryMetrics" not in query:
            return {"project": {"run": {"historyKeys": {"keys": {}, "lastStep": len(run.history)}}}}
        if "parquetHistory" in query:
            return {"project": {"run": {"parquetHistory": {"parquetUrls": [], "liveData": run.history}}}}
        if "summaryMetrics" in query:
            return {"project": {"internalId": "1", "run": run.node}}
        return {"project": {"run": {"history": [json.dumps(row) for row in run.history]}}}

    def reply(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def bare_environment(home: Path, **variables: str) -> Iterator[pytest.MonkeyPatch]:
    """No login and only the given W&B variables; paths are relative to `home`."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith("WANDB_") or name == "NETRC":
                patch.delenv(name)
        for name, value in {"HOME": str(home), **variables}.items():
            patch.setenv(name, value)
        patch.chdir(home)
        end_service()
        patch.setattr(wandb, "run", None)  # a run whose process has died remains in the list
        yield patch
        end_service()


def inspect(folder: Path, *options: str) -> str:
    """The output of `wandb leet inspect` for the folder of an ended run; cached."""
    return _inspected(folder.resolve(), options)


@functools.cache
def _inspected(folder: Path, options: tuple[str, ...]) -> str:
    command = [str(WANDB), "leet", "inspect", *options, "--json", str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in inspect(folder).splitlines()]
    return [line[kind] for line in lines if line["type"] == kind]
