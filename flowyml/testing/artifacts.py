"""Artifacts: files and folders reach the next step; outputs are listed and downloaded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from flowyml.core.capabilities import Feature
from flowyml.core.runs import Artifact
from flowyml.orchestrators.base import Orchestrator
from flowyml.orchestrators.downloading import download
from flowyml.testing import pipelines_artifacts
from flowyml.testing.base import Conformance, Done, sample

__all__ = ["ArtifactConformance"]

_stored = sample(pipelines_artifacts.stores_files)


class ArtifactConformance(Conformance):
    """One run; each test checks another aspect of it."""

    @pytest.fixture
    def found(self, orchestrator: Orchestrator, done: Done) -> Mapping[str, Artifact]:
        """Return the artifacts of the run by their labels."""
        self.needs(orchestrator, Feature.ARTIFACTS, done.run.artifacts)
        return {artifact.label: artifact for artifact in done.run.artifacts()}

    @_stored
    def test_the_next_step_reads_files_and_folders(self, done: Done) -> None:
        assert done.outputs["found"] == ["Report 1.txt", "20 rows", "model", "config", "deep", "deep/weights"]

    @_stored
    def test_all_that_was_stored_is_listed(self, done: Done, found: Mapping[str, Artifact]) -> None:
        assert list(found) == ["look.rows", "look.scores", "write.text", "write.tree"]
        assert [each.type for each in found.values()] == ["table", "metrics", "file", "folder"]

    @_stored
    def test_a_table_says_how_large_it_is(self, done: Done, found: Mapping[str, Artifact]) -> None:
        facts = dict(found["look.rows"].metadata)
        assert {name: facts.get(name) for name in ("rows", "columns")} == {"rows": 20, "columns": 2}

    @_stored
    def test_a_table_has_a_head(self, done: Done, found: Mapping[str, Artifact]) -> None:
        head = found["look.rows"].head
        assert head["columns"] == ["n", "note"]
        assert head["rows"] == [[str(number), "<i>*one*</i>"] for number in range(10)]

    @_stored
    def test_what_a_step_reports_is_listed(self, done: Done, found: Mapping[str, Artifact]) -> None:
        facts = found["look.rows"].metadata
        assert (facts.get("source"), facts.get("checked")) == ("<b>made|up</b>", True)

    @_stored
    def test_what_is_reported_of_one_output_is_not_of_another(
        self, done: Done, found: Mapping[str, Artifact]
    ) -> None:  # fmt: skip
        assert dict(found["look.scores"].metadata) == {"auc": 0.5, "f1": 1.0}

    @_stored
    def test_sizes_and_digests_are_those_of_the_content(self, done: Done, found: Mapping[str, Artifact]) -> None:
        text = found["write.text"]
        stored = (7, hashlib.sha256(b"20 rows").hexdigest())
        assert (text.size, text.digest) == (stored if text.format != "none" else (None, None))

    @_stored
    def test_a_folder_says_how_many_files_it_has(self, done: Done, found: Mapping[str, Artifact]) -> None:
        assert found["write.tree"].metadata.get("files") == 2

    @_stored
    def test_what_has_a_url_can_be_downloaded(
        self, orchestrator: Orchestrator, done: Done, found: Mapping[str, Artifact], tmp_path: Path
    ) -> None:  # fmt: skip
        kept = [each for each in found.values() if each.url or each.type == "metrics"]
        made = download(kept, orchestrator.artifact_stores(done.run.job_id), tmp_path)
        names = {path.relative_to(tmp_path).as_posix() for path in made}
        assert "look/scores.json" in names
        assert names <= {"look/rows.json", "look/scores.json", "write/Report 1.txt", "write/model"}
        if "write/Report 1.txt" in names:
            assert (tmp_path / "write/Report 1.txt").read_text() == "20 rows"
        if "write/model" in names:
            assert (tmp_path / "write/model/deep/weights").read_bytes() == b"\0\1"

    @_stored
    def test_a_handle_from_elsewhere_lists_the_same(
        self, orchestrator: Orchestrator, done: Done, found: Mapping[str, Artifact]
    ) -> None:  # fmt: skip
        assert orchestrator.attach(done.run.job_id).artifacts() == list(found.values())
