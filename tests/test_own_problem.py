"""The commands for a problem of one's own: each end is said in the last line and by the exit code."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest

from rfho import cli
from rfho.runs.run_folder import RunFolder

PROBLEM = """
import jax.numpy as jnp, optax, rfho
loss = lambda w, hyper, batch: (w - hyper["goal"]["a"]) ** 2
objective = lambda w, hyper, batch: (w - 1.0) ** 2
dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(hyper["lr"]), jnp.zeros(()))
problem = rfho.Problem(dynamics, objective, horizon=3)
made = lambda: problem
hyper = {"lr": 0.1, "goal": {"a": 0.5}}
optim, steps = optax.sgd(0.1), 4
number = 3
"""


@pytest.fixture(autouse=True)
def in_a_folder_with_a_problem(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(PROBLEM)
    with jax.enable_x64(False):  # as users start
        yield


def changed(old, new):
    assert old in PROBLEM
    Path("mine.py").write_text(PROBLEM.replace(old, new))


def test_a_file_may_define_modules_with_annotations_that_are_read_later(capsys):
    """Dataclasses, and so modules of Equinox, look in `sys.modules` for the file that they are in."""
    module = "import equinox as eqx\nclass Net(eqx.Module):\n    w: eqx.Module\n"
    Path("later.py").write_text(f"from __future__ import annotations\n{module}{PROBLEM}")
    assert cli.main(["plan", "later.py"]) == 0
    assert "nothing was allocated" in capsys.readouterr().out


def test_tune_shows_every_step_and_the_solution(capsys):
    assert cli.main(["tune", "mine.py:problem", "--set", "goal.a=0.75"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "compiling, then 4 outer steps of 3 steps"
    assert lines[1].startswith("step 1 of 4: objective 0.402; goal.a = 0.8119")
    assert lines[5].startswith("STEPS_DONE")
    assert len(lines) == 10


def test_a_run_in_a_folder_goes_on(capsys):
    command = ["tune", "mine.py:made", "--run", "here", "--steps"]
    assert cli.main([*command, "2"]) == 0
    assert cli.main([*command, "3"]) == 0
    assert "step 3 of 3" in capsys.readouterr().out.splitlines()[-7]
    assert [row["step"] for row in RunFolder(Path("here")).history()] == [1, 2, 3]
    assert Path("here/report.html").exists()


def test_a_run_that_diverges_says_so_last_and_by_its_exit_code(capsys):
    assert cli.main(["tune", "mine.py", "--set", "lr=1e30"]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("FAILED after 0 outer steps: objective is ")


@pytest.mark.parametrize("how", [(["--retry", "20"], ""), ([], "retry = rfho.Retry(20)")])
def test_a_run_that_fails_is_taken_back_where_that_is_wished(how, capsys):
    flags, line = how
    changed("optax.sgd(0.1), 4", "optax.sgd(1e4), 4\nretry = None")
    assert cli.main(["tune", "mine.py"]) == 1
    Path("mine.py").write_text(f"{Path('mine.py').read_text()}{line}\n")
    assert cli.main(["tune", "mine.py", *flags]) == 0
    output = capsys.readouterr().out
    assert "(retry 1 of 20)" in output
    assert "STEPS_DONE" in output


def test_check_tells_healthy_from_doubtful(capsys):
    assert cli.main(["check", "mine.py:problem"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "healthy"
    assert cli.main(["check", "mine.py:problem", "--set", "lr=1e30"]) == 1
    output = capsys.readouterr().out
    assert output.splitlines()[-1] == "DOUBTFUL: see above"


WRONG = [
    ("none.py", ("", ""), "there is no Python file none.py: write FILE.py:problem"),
    (
        "mine.py:problm",
        ("", ""),
        "mine.py has no name 'problm' for a rfho.Problem: did you mean problem?",
    ),
    ("mine.py:number", ("", ""), "number in mine.py is of type int, but it must be a rfho.Problem"),
    ("mine.py", ("hyper =", "hypr ="), "mine.py has no name 'hyper' for λ_0"),
    ("mine.py", ("(w - 1.0)", "(w - one)"), "mine.py, line 4: "),
    ("mine.py", ("number = 3", "number = 1 / 0"), "mine.py, line 10: ZeroDivisionError"),
    ("mine.py", ("number = 3", "number ="), "mine.py, line 10: SyntaxError"),
    ("mine.py:made", ("lambda: problem", "lambda: problm"), "mine.py, line 7: NameError"),
    (
        "mine.py",
        ('optax.sgd(hyper["lr"])', "optax.sgd(0.1)"),
        'mine.py: ValueError: hyper["lr"] reaches',
    ),
    ("mine.py", ("horizon=3", "horizon=0"), "mine.py, line 6: ValueError: "),
    ("mine.py", ('"lr": 0.1', '"lr": 1.5'), None),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("target", "change", "message"), WRONG)
def test_what_is_wrong_with_a_file_is_one_line(target, change, message, capsys):
    changed(*change)
    expected = 0 if message is None else 2
    assert cli.main(["tune", target, "--steps", "1"]) == expected
    if message is not None:
        said = capsys.readouterr().err
        assert said.startswith(f"rfho: {message}")
        assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("goal", "cannot read --set 'goal': write NAME=NUMBER"),
        ("gaol.a=1", "did you mean goal.a? the hyperparameters are goal.a, lr"),
        ("lr=fast", "'fast' is not a number"),
    ],
)
def test_what_is_wrong_with_a_start_is_one_line(assignment, message, capsys):
    assert cli.main(["tune", "mine.py", "--set", assignment]) == 2
    assert message in capsys.readouterr().err


def test_a_plan_says_what_each_method_needs(capsys):
    assert cli.main(["plan", "mine.py:made", "--set", "lr=0.2", "--flops", "1e9"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "1 parameters, 3 steps, devices: 1; on each 4 B of parameters and 0 B"
    )
    assert lines[1].split() == ["tape", "memory", "host", "FLOPs", "sent", "plain", "runs", "hours"]
    assert lines[2].split()[0] == "ReverseHyperGradient()"
    assert lines[-1].endswith("nothing was allocated or trained")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mesh", "data"], "cannot read --mesh 'data': write data=8, or data=8,model=8"),
        (["--placement", "fdsp"], "unknown placement 'fdsp': did you mean fsdp?"),
        (["--mesh", "data=4096"], "4096 devices cannot be simulated, as JAX has started with"),
    ],
)
def test_what_is_wrong_with_a_mesh_is_one_line(options, message, capsys):
    assert cli.main(["plan", "mine.py:made", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_new_problem_runs_by_command_and_in_python(capsys):
    assert cli.main(["new", "fresh"]) == 0
    assert "rfho tune fresh/problem.py:problem" in capsys.readouterr().out
    assert cli.main(["new", "fresh"]) == 2
    assert cli.main(["tune", "fresh/problem.py:problem", "--steps", "1"]) == 0
    assert "penalty.hidden" in capsys.readouterr().out


@pytest.mark.soak
def test_a_new_problem_gets_better_and_runs_as_a_program():
    cli.main(["new", "fresh"])
    done = subprocess.run([sys.executable, "fresh/problem.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "STEPS_DONE" in done.stdout
    assert cli.main(["check", "fresh/problem.py:problem"]) == 0
