"""Checking what is on the disk, as planned: each blob once, and then what the models make of it."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import replace
from pathlib import Path

from dsollama.check.advice import Origins, again, repair_command
from dsollama.check.blocks import Chain, Scan, chain_of, is_mendable, scan
from dsollama.check.contents import WORDS, check_small, check_weights, model_format
from dsollama.check.findings import BlobReport, Finding, ModelReport, StoreReport
from dsollama.check.plan import CheckPlan, PlannedBlob, PlannedModel
from dsollama.check.reading import MAX_HOLES, BlobReader, written_bytes
from dsollama.check.repair import Repair
from dsollama.check.sources import BlobSource
from dsollama.errors import BrokenManifestError
from dsollama.events import BytesMoved, Listener, Noted, StepStarted
from dsollama.manifest.layers import MODEL
from dsollama.sources.registry import source_named
from dsollama.store.files import read_small
from dsollama.store.store import MAX_JSON, MAX_SMALL_BLOB, Store
from dsollama.units import format_bytes

EVENT_SECONDS = 0.2


def check(plan: CheckPlan, listener: Listener) -> StoreReport:
    """Check as planned; what is wrong is in the report, not raised.

    Args:
        plan: from `plan_check`.
        listener: hears of progress, and of what is repaired.

    Raises:
        HubError: a repair needs bytes that the Hub does not give; what was right stays so.
        StoreError: a repair cannot write, or another one is at work.
    """
    checker = _Checker(plan, listener)
    detail = f"{len(plan.blobs)} blobs, {format_bytes(checker.progress.total)} to read"
    listener(StepStarted("verify", detail))
    blobs = tuple(checker.blob(number, blob) for number, blob in enumerate(plan.blobs))
    checker.progress.finish()
    by_digest = {blob.digest: blob for blob in blobs}
    models = tuple(checker.model(model, by_digest) for model in plan.models)
    return StoreReport(plan.store, plan.quick, models, blobs)


class _Progress:
    """Counts what is digested, of all that will be."""

    def __init__(self, total: int, blobs: int, listener: Listener) -> None:
        self.total = total
        self.done = 0
        self.blob = 1
        self._blobs = blobs
        self._listener = listener
        self._last = time.monotonic()

    def moved(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self._last >= EVENT_SECONDS and self.done < self.total:
            self._last = now
            self._tell()

    def finish(self) -> None:
        """Say that all is done; a blob that was cut off or mended had other bytes than planned."""
        self.done = self.total
        if self.total:
            self._tell()

    def _tell(self) -> None:
        done = min(self.done, self.total)
        self._listener(BytesMoved("verify", done, self.total, 0, self.blob, self._blobs))


class _Checker:
    def __init__(self, plan: CheckPlan, listener: Listener) -> None:
        self._plan = plan
        self._listener = listener
        self._store = Store(plan.store)
        self._origins = Origins(self._store)
        total = sum(self._work(each) for each in plan.blobs if self._is_hashed(each))
        self.progress = _Progress(total, len(plan.blobs), listener)

    def blob(self, number: int, blob: PlannedBlob) -> BlobReport:
        """Check one blob, and mend it if that is planned."""
        self.progress.blob = number + 1
        path = self._path(blob)
        try:
            status = path.stat()
        except FileNotFoundError:
            return self._wrong(blob, None, "missing-blob", "is missing", self._again(blob))
        except OSError as error:
            return self._unreadable(blob, None, error)
        if not stat.S_ISREG(status.st_mode):
            return self._wrong(blob, None, "unreadable-blob", "is not a file", self._replace(blob))
        try:
            if self._is_hashed(blob):
                report = self._hash(blob)
            else:
                report = self._compare_size(blob, status.st_size)
            return self._look_inside(blob, report)
        except OSError as error:
            return self._unreadable(blob, status.st_size, error)

    def model(self, model: PlannedModel, blobs: dict[str, BlobReport]) -> ModelReport:
        """Gather what is wrong with one model."""
        findings = list(model.findings)
        for layer in {layer.digest: layer for layer in model.layers}.values():
            report = blobs[layer.digest]
            findings += report.findings
            if not report.findings and report.size != layer.size:
                findings.append(self._other_size(model, layer.media_type, layer.size, report))
        if not findings and self._lacks_weights(model):
            advice = self._again_by_name(model)
            sentence = f"The manifest of {model.name} names no weights."
            findings.append(Finding("no-weights", sentence, advice))
        repaired = any(blobs[layer.digest].repaired for layer in model.layers)
        unchecked = "" if findings else self._unchecked(model)
        return ModelReport(str(model.name), (*findings, *model.twins), repaired, unchecked)

    def _unchecked(self, model: PlannedModel) -> str:
        """Say what the weights' digest does not tell: whether a Hub has published the same."""
        weights = next((each for each in model.layers if each.media_type == MODEL), None)
        entry = self._store.ledger.read(weights.digest) if weights else None
        if entry is None or not entry.unchecked:
            return ""
        where = "" if entry.listed else f", copied from {entry.folder or 'a folder'}"
        read = f"the weights match what was installed{where}; " if not self._plan.quick else ""
        count = f"{len(entry.unchecked)} of {len(entry.sources)} files"
        return f"{read}{count} had no published digest to compare with"

    def _path(self, blob: PlannedBlob) -> Path:
        return self._store.blob_path(blob.digest)

    def _work(self, blob: PlannedBlob) -> int:
        """Bytes to read; a repair also gets those that a blob is short of."""
        try:
            size = self._path(blob).stat().st_size
        except OSError:
            return 0
        return max(size, blob.size) if self._plan.repair else size

    def _is_hashed(self, blob: PlannedBlob) -> bool:
        """Settings are digested with --quick too: their bytes are read anyway."""
        return not self._plan.quick or _is_small(blob)

    def _hash(self, blob: PlannedBlob) -> BlobReport:
        entry = self._store.ledger.read(blob.digest)
        chain = chain_of(blob.digest, entry, blob.size)
        path, before = self._path(blob), self.progress.done
        with path.open("rb", buffering=0) as file:
            actual = os.fstat(file.fileno()).st_size
            written = written_bytes(file.fileno(), actual)
            if actual - written > MAX_HOLES:
                words = f"is damaged: of its {format_bytes(actual)} only "
                words += f"{format_bytes(written)} were ever written"
                return self._wrong(blob, actual, "wrong-digest", words, self._replace(blob))
            source = self._source(blob, chain)
            with (
                BlobReader(file, self.progress.moved) as reader,
                Repair(
                    self._store, blob.digest, actual, source, self._listener, self.progress.moved
                ) as repair,
            ):
                found = scan(reader, actual, chain, repair if self._plan.repair else None)
                if self._plan.repair and found.within and not found.whole:
                    repair.apply(chain.size)
                elif repair.mended:  # by a chain that does not lead to the blob's name
                    first = repair.mended[0]
                    repair.undo()
                    found = scan(reader, actual, chain_of(blob.digest, None, actual), None)
                    found = replace(found, bad=first)
                mended, fetched, refused = repair.mended, repair.fetched, repair.refused
        hashed = self.progress.done - before
        report = BlobReport(
            blob.digest, actual, hashed, mended=mended, fetched=fetched, right=found.whole
        )
        if found.whole:
            self._note_wrong_chain(blob, found)
            return report
        if self._plan.repair and found.within:
            return replace(report, size=chain.size, right=True, repaired=True)
        return replace(report, findings=(self._damage(blob, chain, actual, found, refused),))

    def _source(self, blob: PlannedBlob, chain: Chain) -> BlobSource | None:
        """Return where bad blocks can be had; None where the ledger does not tell."""
        entry = self._store.ledger.read(blob.digest)
        if not chain.known or entry is None or not is_mendable(entry):
            return None
        source = source_named(entry.endpoint, trusted=self._plan.endpoint)
        reader = source.reader(entry.repository, entry.commit, self._listener)
        return BlobSource(entry, reader, offline=self._plan.offline)

    def _damage(
        self, blob: PlannedBlob, chain: Chain, actual: int, found: Scan, refused: str
    ) -> Finding:
        """Return the finding of a blob whose bytes are not those of its name."""
        code, words = "wrong-size", "is damaged"
        if actual < chain.size:
            words = f"is cut off: {actual} of {chain.size} bytes are there"
        elif actual > chain.size:
            words = f"is too long: {actual} bytes for {chain.size}"
            words += ", which are right" if found.within else ""
        else:
            code = "wrong-digest"
        if chain.known and found.bad and found.bad.end <= actual:
            words += f", first in bytes {found.bad.start} to {found.bad.end}"
        return self._finding(blob, code, words, self._damage_hint(blob, chain, found, refused))

    def _damage_hint(self, blob: PlannedBlob, chain: Chain, found: Scan, refused: str) -> str:
        if self._plan.repair:
            tried = f"The repair changed nothing: {refused} " if refused else ""
            return tried + self._replace(blob)
        if found.within or self._source(blob, chain):
            command = repair_command(blob.names, self._store)
            return f"`{command}` downloads only what is damaged."
        return self._replace(blob)

    def _note_wrong_chain(self, blob: PlannedBlob, found: Scan) -> None:
        if found.bad:
            self._listener(
                Noted(f"{blob.digest[7:19]} is right; what the ledger says of its blocks is not")
            )

    def _compare_size(self, blob: PlannedBlob, actual: int) -> BlobReport:
        """All that can be told of the weights without reading them."""
        chain = chain_of(blob.digest, self._store.ledger.read(blob.digest), blob.size)
        report = BlobReport(blob.digest, actual)
        if actual == chain.size:
            return report
        finding = self._damage(blob, chain, actual, Scan(whole=False, within=False, bad=None), "")
        return replace(report, findings=(finding,))

    def _look_inside(self, blob: PlannedBlob, report: BlobReport) -> BlobReport:
        """Add what is wrong with the contents of a blob that is otherwise as it should be."""
        if report.findings:
            return report
        findings = []
        if MODEL in blob.media_types:
            finding = check_weights(self._path(blob), blob.digest)
            if finding:
                hint = finding.hint or self._unloadable_hint(blob, report)
                findings.append(replace(finding, hint=hint))
        elif _is_small(blob) and (report.size or 0) <= MAX_SMALL_BLOB:
            data = read_small(self._path(blob), MAX_SMALL_BLOB)
            for media_type in blob.media_types:
                wrong = check_small(media_type, data)
                if wrong:
                    findings.append(Finding(*wrong, self._again(blob), blob.digest))
        return replace(report, findings=tuple(findings))

    def _unloadable_hint(self, blob: PlannedBlob, report: BlobReport) -> str:
        if report.right:
            return "They are as they were made, so another download is the same: take other ones."
        command = repair_command(blob.names, self._store)
        return f"`{command}` reads everything, and downloads only what is damaged."

    def _other_size(
        self, model: PlannedModel, media_type: str, claimed: int, report: BlobReport
    ) -> Finding:
        what = WORDS.get(media_type, "layer")
        right = ", and they are right" if report.right else ""
        return Finding(
            "wrong-size",
            f"The manifest of {model.name} says that the file of the {what} has {claimed} bytes; "
            f"it has {report.size}{right}.",
            self._again_by_name(model),
            report.digest,
        )

    def _lacks_weights(self, model: PlannedModel) -> bool:
        if not model.layers or any(layer.media_type == MODEL for layer in model.layers):
            return False
        try:
            return model_format(self._store.read_blob(model.layers[0].digest, MAX_JSON)) == "gguf"
        except BrokenManifestError:
            return False

    def _again_by_name(self, model: PlannedModel) -> str:
        entry = self._origins.of_name(model.name)
        return again(entry, self._store, self._plan.endpoint, [model.name])

    def _again(self, blob: PlannedBlob) -> str:
        """What to do where the file is missing, or too short to be taken for what it should be."""
        entry = self._store.ledger.read(blob.origin) if blob.origin else None
        sentence = again(entry, self._store, self._plan.endpoint, blob.names)
        if MODEL in blob.media_types or blob.origin is None:
            return sentence
        return f"{sentence} Weights that are there are not moved again."

    def _replace(self, blob: PlannedBlob) -> str:
        """What to do where a damaged file is in the way of a new one."""
        if MODEL not in blob.media_types and blob.origin is not None:
            return self._again(blob)  # small layers are always written anew
        return f"Remove {self._path(blob)}. {self._again(blob)}"

    def _unreadable(self, blob: PlannedBlob, size: int | None, error: OSError) -> BlobReport:
        words = f"cannot be read: {error.strerror or error}"
        hint = "Run dsollama as the user who owns the store; if it is its own, look at the disk."
        return self._wrong(blob, size, "unreadable-blob", words, hint)

    def _wrong(
        self, blob: PlannedBlob, size: int | None, code: str, words: str, hint: str
    ) -> BlobReport:
        return BlobReport(blob.digest, size, findings=(self._finding(blob, code, words, hint),))

    def _finding(self, blob: PlannedBlob, code: str, words: str, hint: str) -> Finding:
        what = WORDS.get(blob.media_types[0], "layer")
        return Finding(
            code, f"The file of the {what} ({blob.digest[7:19]}) {words}.", hint, blob.digest
        )


def _is_small(blob: PlannedBlob) -> bool:
    return MODEL not in blob.media_types and blob.size <= MAX_SMALL_BLOB
