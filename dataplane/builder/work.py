"""One build from source to images, and the loops that take builds."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from cells.specification import Specification, SpecificationError, parse
from dataplane.agent.network import path_of
from dataplane.builder import detect, plans, refusals
from dataplane.builder.images import BuildFailed, Cancelled, Job, Runner
from dataplane.client import ControlPlane, NotEnrolled, Refused
from infra.config import Config

log = logging.getLogger("cytoplane.builder")
HEARTBEAT = 3.0
FLUSH = 0.1
#: Characters of output in one request.
_PIECE = 60000


class LogWriter:
    """Sends output in small batches, in order; slow or lost connections delay it, not the build."""

    def __init__(self, control: ControlPlane, number: int) -> None:
        self._control, self._path = control, f"/builder/builds/{number}/log"
        self._text: list[str] = []
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def say(self, text: str) -> None:
        with self._lock:
            self._text.append(text)

    def _flush(self) -> None:
        with self._lock:
            text, self._text = "".join(self._text), []
        while text:
            piece, text = text[:_PIECE], text[_PIECE:]
            try:
                self._control.post(self._path, {"text": piece})
            except (httpx.HTTPError, Refused, OSError) as error:
                log.warning("output isn't delivered: %s", error)

    def _run(self) -> None:
        while not self._done.wait(FLUSH):
            self._flush()

    def close(self) -> None:
        self._done.set()
        self._thread.join()
        self._flush()


class Builder:
    """Takes builds, one for each slot at a time."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.control = ControlPlane(config.builder_dir, config.control_plane)

    def loop(self, slot: int) -> None:
        """Take and do builds for ever."""
        delay = 0.5
        while True:
            try:
                if slot == 0:
                    self.control.enrol(f"builder-{self.config.name}", {"slots": 2})
                elif not self.control.enrolled:
                    time.sleep(0.5)
                    continue
                self.control.renew_if_due()
                if not path_of(self.config, f"build-{slot}").exists():
                    raise Refused(f"the agent hasn't made the namespace of build slot {slot} yet")
                document = self.control.get("/builder/next")
                delay = 0.5
                if document is not None:
                    self.take(document, slot)
            except NotEnrolled as error:
                log.info("%s", error)
                time.sleep(2)
            except (httpx.HTTPError, Refused, OSError) as error:
                log.warning("the control plane: %s", error)
                time.sleep(delay)
                delay = min(delay * 2, 10)
            except Exception:  # whatever it was, the slot must take the next build
                log.exception("taking a build failed")
                time.sleep(delay)
                delay = min(delay * 2, 10)

    def take(self, document: dict[str, Any], slot: int) -> None:
        """Do one build and report its result."""
        job = Job(
            number=document["build"],
            tenant=document["tenant"],
            project=document["project"],
            domain=document["domain"],
            repository=document["repository"],
            limits=document["limits"],
        )
        writer = LogWriter(self.control, job.number)
        runner = Runner(self.config, job, slot, writer.say)
        stop = threading.Event()
        threading.Thread(target=self._beat, args=(job, runner, stop), daemon=True).start()
        result: dict[str, Any] | None
        try:
            result = self._build(job, runner, writer)
        except BuildFailed as error:
            result = {"ok": False, "error": {"code": error.code, "parameters": error.parameters}}
        except Cancelled:
            result = None
        except Exception as error:  # the slot must take the next build whatever this one did
            log.exception("build %s failed", job.number)
            result = {
                "ok": False,
                "error": {"code": "unavailable", "parameters": {"part": f"the builder ({error})"}},
            }
        finally:
            stop.set()
            writer.close()
            shutil.rmtree(runner.folder, ignore_errors=True)
        if result is not None:
            self._report(job, result)
        runner.tidy()

    def _report(self, job: Job, result: dict[str, Any]) -> None:
        for attempt in range(6):
            try:
                self.control.post(f"/builder/builds/{job.number}/result", result)
                return
            except Refused as error:
                log.warning("the result of build %s is refused: %s", job.number, error)
                return
            except (httpx.HTTPError, OSError):
                time.sleep(2**attempt / 2)

    def _beat(self, job: Job, runner: Runner, stop: threading.Event) -> None:
        """Tell that the build goes on; end it when nobody wants it any more."""
        while not stop.wait(HEARTBEAT):
            try:
                if not self.control.post(f"/builder/builds/{job.number}/heartbeat", {}).get("continue"):
                    runner.cancel()
                    return
            except (httpx.HTTPError, Refused, OSError):
                continue

    def _build(self, job: Job, runner: Runner, writer: LogWriter) -> dict[str, Any]:
        folder = runner.prepare()
        refusals.take(self.config, runner.slot)  # an earlier build's
        source = folder / "source"
        archive = folder / "source.tar"
        self.control.download(f"/builder/builds/{job.number}/source", archive)
        archive.chmod(0o644)
        # In the enclosure: GNU tar keeps members inside the folder, and whatever it didn't has no rights.
        unpack = ["tar", "--extract", "--file=/mnt/work/source.tar", "--directory=/mnt/work/source"]
        if runner.run([*unpack, "--no-same-owner", "--no-same-permissions"], show=False)[0]:
            raise BuildFailed("source-rejected", reason="its archive can't be unpacked")
        archive.unlink()
        specification = self._specification(job, source)
        # All that we read of the source and write beside it, before anything of it has run.
        instructions: dict[str, Path] = {}
        for component in specification.components.values():
            if component.path not in instructions:
                file = folder / f"Containerfile-{len(instructions)}"
                file.write_text(plans.containerfile(component.builder, source / component.path))
                instructions[component.path] = file
        images: dict[str, str] = {}
        built: dict[str, str] = {}
        for name, component in specification.components.items():
            if component.path not in built:
                where = "" if component.path == "." else f" in {component.path}"
                writer.say(f"-----> Building {name}{where} ({component.builder})\n")
                begun = time.monotonic()
                try:
                    tag = runner.build(name, source / component.path, instructions[component.path])
                finally:
                    for line in refusals.lines(refusals.take(self.config, runner.slot)):
                        writer.say(line)
                built[component.path] = runner.push(self.control, tag)
                writer.say(f"       Built in {time.monotonic() - begun:.1f} s\n")
            images[name] = built[component.path]
        return {"ok": True, "specification": specification.as_dict(), "images": images}

    def _specification(self, job: Job, source: Path) -> Specification:
        files = detect.declarations(source)
        try:
            detected = detect.detect(source, files)
            specification = parse(files, project=job.project, detected=detected, domain=job.domain)
        except SpecificationError as error:
            raise BuildFailed(
                "specification", message=f"{error.where}: {error.message}", hint=error.hint
            ) from error
        if not specification.components:
            raise BuildFailed("no-buildable-source")
        return specification
