"""The how-to on long runs does what it says."""

import contextlib
import io
import re

from library_source import ROOT

from rfho.runs.run_folder import RunFolder

PAGE = ROOT / "docs" / "how-to" / "long-runs.md"


def test_its_code_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rfho.runs.run.add_course", lambda *_: None)  # pictures take long
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, str(PAGE), "exec"), {})
    assert "30 30" in said.getvalue()
    assert "allow=[" in said.getvalue()
    assert RunFolder(tmp_path / "runs" / "first").about().status == "finished"
    assert len(RunFolder(tmp_path / "runs" / "first").history()) == 40
